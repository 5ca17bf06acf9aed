"""Environments of a run and the sampling of its conversations, as the config says."""

from __future__ import annotations

from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.config.schema import PolicyConfig, RunConfig
from mm_cpgd.environments import EnvironmentFactory, get_environment
from mm_cpgd.environments.registry import BoundEnvironment
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.rollout import RolloutEngine
from mm_cpgd.rollout.conversations.sampler import ConversationSampler
from mm_cpgd.rollout.conversations.state import Limits


def longest_completion(rollout: RolloutConfig) -> int:
    """Return the largest number of own tokens of a completion, over all of its turns."""
    chosen = rollout.environment
    if chosen is None:
        return rollout.max_new_tokens
    return min(chosen.max_tokens, chosen.max_turns * rollout.max_new_tokens)


def held_bytes(rollout: RolloutConfig) -> int | None:
    """Return ``LocalEngine``'s limit of keys and values that are kept of conversations."""
    gib = None if rollout.environment is None else rollout.environment.cache_gib
    return None if gib is None else int(gib * 2**30)


def load_environment(config: RunConfig) -> EnvironmentFactory | None:
    """Return what makes the config's environments, None without one.

    Raises:
        UserError: as ``get_environment``; or something in the config that does not go together with one.
    """
    chosen = config.rollout.environment
    if chosen is None:
        return None
    return _with_prompt(get_environment(chosen.name, chosen.options), config.policy)


def _with_prompt(found: BoundEnvironment, policy: PolicyConfig) -> BoundEnvironment:
    """Return the environment with the policy's prompt texts, which it writes unless it has its own.

    Raises:
        UserError: it takes no template.
    """
    given = {"template": policy.prompt_template, "system_prompt": policy.system_prompt}
    plain = {"template": PolicyConfig.model_fields["prompt_template"].default, "system_prompt": None}
    wanted = {key: text for key, text in given.items() if text != plain[key] and key not in found.options}
    if "template" in wanted and not found.has_option("template"):
        raise UserError(
            f"policy.prompt_template={policy.prompt_template!r} has no part in prompts of the environment "
            f"{found.name!r}, which writes its own; leave it out, or give the environment an option "
            "template, for prompt_messages(example, template)"
        )
    return found.with_options({key: text for key, text in wanted.items() if found.has_option(key)})


def build_conversations(
    config: RunConfig, policy: Policy, engine: RolloutEngine
) -> ConversationSampler | None:
    """Return what samples conversations with the config's environment, None without one.

    Raises:
        UserError: as ``load_environment``, or the policy cannot continue a conversation.
    """
    chosen, factory = config.rollout.environment, load_environment(config)
    if chosen is None or factory is None:
        return None
    return ConversationSampler(
        policy,
        engine,
        factory,
        Limits(chosen.max_turns, chosen.max_tokens, chosen.max_images),
        seconds=chosen.tool_seconds,
        threads=chosen.threads,
        rounds=chosen.rounds,
    )
