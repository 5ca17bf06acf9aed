"""Differences from the sources: listed for every part and recipe that has one, with numbers that are true."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from data.sampler import ScoredPromptSampler
from mm_cpgd.algorithms import advantages, selection, token_weights
from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.formulas import difference_rows
from mm_cpgd.cli.main import app
from mm_cpgd.config.loading import SHIPPED, load_config
from mm_cpgd.config.recipes import listed_differences, recipe_differences, recipe_note
from rewards.example import RewardExample as Example
from rewards.rules.accuracy import exact
from rewards.rules.format import format_tags
from rewards.rules.text import bleu, rouge_l
from tests.paths import DOCS

ROWS = list(difference_rows())
# Name → words that its texts must contain, one tuple for each difference that is known.
KNOWN: dict[str, list[str]] = {
    "clip_cov": ["sample dynamically"],
    "kl_cov": ["k_percent is in percent", "sample dynamically"],
    "mmr1": ["outcome variance alone", "KL loss of 0.01 (k3)"],
    "deepseek_v32": ["neither the clip", "keeps the experts"],
    "token_weights.off_policy_mask": ["does not state δ"],
    "mdpo": ["gradient steps on each batch", "control tasks"],
    "regularizers.mirror": ["closed form", "falls linearly"],
    "one_shot": ["a batch of 128", "tokens of each micro-batch", "choose the row"],
    "epo": ["from 0 to 2 times"],
    "regularizers.entropy_band": ["indicator times a constant", "each turn of an agent"],
    "scale_rl": ["never draws", "by a phrase", "8 updates old"],
    "advantage.scale_rl": ["tokens of each prompt"],
    "token_advantages.optimal_baseline": ["from the logits", "second longest"],
    "token_advantages.preference": ["empty thought", "one pair for each prompt"],
    "token_advantages.f_divergence": ["last 1,024"],
    "brpo": ["4 answers at each", "could not be seen"],
    "token_advantages.brpo": ["learn from the answers", "the end of the thinking"],
    "token_advantages.bvpo": ["one pair for each prompt", "least squared error"],
    "dppo": ["rollout engine reports"],
    "bnpo": ["undivided by the largest length", "dual clip at 10", "10 steps of warm-up", "accuracy alone"],
    "dapo": ["overlong filtering", "two thirds"],
    "forking_tokens": ["overlong filtering", "two thirds"],
    "reinforce_pp": ["k2 loss"],
    "spo": ["1024 prompts", "no success rate"],
    "advantage.spo": ["how far the policy has moved", "8 completions of the initial policy"],
    "prompts.tracker_variance": ["next 14,000 rows"],
    "budget.knapsack": ["dynamic programming", "approximation"],
    "hpt": ["coefficient of 0.3", "norm of 80"],
    "demonstrations.hpt": ["count right completions", "of a micro-batch", "once it was taught"],
    "spear": ["up to 2048", "reaches 1 after", "steps of their own", "reward for calls"],
    "replay.spear": ["not bounded", "that the trainer computes"],
    "aepo": ["up to 60"],
    "tempered.aepo": ["take the places", "A > 0.05", "the number at 60"],
    "copg": ["pairs of any origin"],
    "surrogate.one_token": ["could not be seen", "has no advantage"],
    "surrogate.one_token_exact": ["The paper draws"],
    "surrogate.copg": ["half of the gradient"],
    "gtpo": ["gradient norm of at most 0.1"],
    "token_advantages.entropy_shaped": ["threshold of 0.7", "current policy's entropy"],
    "d3s": ["shape of the schedule"],
    "d3s_gspo": ["shape of the schedule"],
    "riskpo": ["1,024 prompts"],
    "reward_weights.hypervolume_scale": ["scale the rewards", "validation rows"],
    "reward_weights.advantage_influence": ["over some layers", "its own influences", "no smallest weight"],
    "advantage.copo": ["two clipped losses", "could not be seen"],
    "advantage.riskpo": ["plus 1e-6", "19 quantiles", "fourth division"],
    "completions.max_variance": ["PODS computes"],
    "empg": ["agents over many turns"],
    "token_advantages.empg": ["turns of an agent", "do not state over what", "below 0.001 nats"],
    "token_advantages.conflict_tokens": ["number of conflict tokens", "length limit cut off"],
    "papo": ["with a KL penalty take 0.02", "recipe papo_both"],
    "vppo": ["between 0.01 and 0.99"],
    "noisyrollout": ["6 completions behind each picture", "one noise per picture"],
    "advantage.reinforce_pp": ["moments over tokens", "KL estimate from the reward"],
    "advantage.bnpo": ["one advantage for each reward rule"],
    "regularizers.kl_cov": ["set share to 0.0002"],
    "token_weights.clip_cov": ["at least one token"],
    "prompts.variance_aware": ["whole pool", "with replacement", "self-BLEU"],
    "regularizers.implicit_perception": ["blind_gradient true", "squares of 14 pixels"],
    "regularizers.entropy_penalty": ["averages to 0"],
    "regularizers.double_entropy": ["without a gradient by default"],
    "token_weights.vppo_completions": ["over each micro-batch"],
    "token_weights.pgpo": ["could not be read", "from the attention"],
    "selection.dynamic_sampling": ["ends the run"],
    "shaping.overlong_penalty": ["half of their range"],
    "configs/chain_of_focus.yaml": ["Judge:", "Form:", "Crops:", "Adaptive reward:", "Run:"],
    "configs/deepeyes.yaml": ["Judge:", "Form:", "Crops:", "Data:", "Run:"],
    "configs/gui_grounding.yaml": ["Task:", "Run:"],
    "configs/satori.yaml": ["Words:", "possible_answers", "[[ ... ]]", "Run:"],
    "configs/video_rlt.yaml": ["Answers:", "Grounded questions:"],
}
TEXTS = {name: [text for row, text in ROWS if row == name] for name in KNOWN}


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("COLUMNS", "4000")
    return lambda *arguments: CliRunner().invoke(app, ["algorithms", *arguments]).output


def test_every_known_difference_has_its_text_and_there_are_no_others() -> None:
    assert {name for name, _ in ROWS} == set(KNOWN)
    for name, words in KNOWN.items():
        texts = TEXTS[name]
        assert [[word in text for word in words].index(True) for text in texts] == [*range(len(words))], name


def test_each_text_says_what_is_done_here() -> None:
    assert [text for _, text in ROWS if "Here" not in text or "{" in re.sub(r'"[^"]*"', "", text)] == []


@pytest.mark.parametrize("name", KNOWN)
def test_the_list_and_the_page_of_the_entry_show_each_difference(name: str, say: Callable[..., str]) -> None:
    page = (DOCS / "algorithms.md").read_text(encoding="utf-8")
    listed, shown = say(), say("show", name.removeprefix("configs/"))
    for text in TEXTS[name]:
        assert text in listed
        assert text in shown
        assert text.replace("|", "\\|") in page


def test_a_recipe_and_a_config_show_the_differences_of_their_parts(
    say: Callable[..., str], tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "policy: {model: embedded:tiny}\ndata: {train: {path: 'generated:clock'}}\n"
        "algorithm: {recipe: mmr1}\n"
    )
    for name in ("mmr1", str(own)):
        text = say("show", name)
        assert "score the whole pool" in text
        assert "KL loss of 0.01 (k3)" in text
    assert "differs" not in say("show", "cpgd")


def test_a_shipped_config_by_name_and_one_that_extends_it_show_its_differences(
    say: Callable[..., str], tmp_path: Path
) -> None:
    shutil.copy(SHIPPED / "satori.yaml", tmp_path)
    for name in ("qwen2_5_vl_3b_lora_cpgd.yaml", "qwen2_5_vl_7b_cpgd.yaml"):
        shutil.copy(SHIPPED / name, tmp_path)
    (tmp_path / "own.yaml").write_text("extends: satori.yaml\nname: own\n")
    for name in ("satori", "satori.yaml", str(tmp_path / "own.yaml")):
        text = say("show", name)
        assert [words for words in KNOWN["configs/satori.yaml"] if words not in text] == []
    assert "differs" not in say("show", "quickstart")


def test_the_note_of_a_recipe_ends_where_its_differences_begin() -> None:
    assert recipe_note("dapo").endswith("soft overlong punishment, no KL.")
    assert recipe_differences("cpgd") == ()
    head = "# Note.\n# Differs from its source:\n# - One - two,\n#   three.\n# - Four.\nkey: 1\n# - no item\n"
    assert listed_differences(head) == ("One - two, three.", "Four.")
    assert listed_differences("a: 1\n# Differs from its source:\n# - x\n") == ()


SETTINGS = [
    ("clip_cov", "selection=[{name: dynamic_sampling}]"),
    ("kl_cov", "regularizers=[{name: kl_cov, coefficient: 1.0, share: 0.0002}]"),
    ("kl_cov", "selection=[{name: dynamic_sampling}]"),
    ("mmr1", "prompts={name: variance_aware, outcome: 1.0, variety: 0.0, share: 0.5}"),
    ("mmr1", "regularizers=[{name: kl, coefficient: 0.01}]"),
    ("bnpo", "aggregation={name: constant, length: 1}"),
    ("bnpo", "surrogate={name: dual_clip, epsilon_low: 0.2, epsilon_high: 0.28, bound: 10}"),
    ("bnpo", "advantage={name: bnpo, low: 0.0, high: 1.0}"),
    ("spo", "advantage={name: spo, high: 1.0}"),
    ("dapo", "completions=[{name: drop_truncated}]"),
    ("hpt", "demonstrations={name: hpt, gamma: 0.25, coefficient: 0.3}"),
    ("dapo", "shaping=[{name: overlong_penalty, penalty: 0.75}]"),
    ("forking_tokens", "completions=[{name: drop_truncated}]"),
    ("forking_tokens", "shaping=[{name: overlong_penalty, penalty: 0.75}]"),
    (
        "epo",
        "regularizers=[{name: entropy_bonus, coefficient: 0.001}, {name: entropy_band, coefficient: 0.001, "
        "low: 0.0, high: 2.0, shape: indicator, penalty: 0.05}]",
    ),
    ("reinforce_pp", "regularizers=[{name: kl, coefficient: 0.01, estimator: k2}]"),
    ("reinforce_pp", "advantage={name: reinforce_pp, baseline: group}"),
    ("noisyrollout", "noisy={middle: 10}"),
    ("brpo", "early_answers={answers: 4}"),
    (
        "papo",
        "regularizers=[{name: implicit_perception, coefficient: 0.02}, "
        "{name: entropy_penalty, coefficient: 0.05}, {name: kl, coefficient: 0.01}]",
    ),
    ("spear", "replay={credit: {name: spear, size: 2048}}"),
    ("spear", "completions=[{name: drop_truncated}]"),
    ("aepo", "tempered={temperature: {name: aepo, most: 0.25}}"),
    ("configs/satori.yaml", "regularizers=[{name: kl, coefficient: 0.001}]"),
    ("configs/satori.yaml", "selection=[]"),
]


def test_the_settings_for_the_sources_behaviour_are_all_listed_here() -> None:
    written = [
        (name, text.replace(": ", "=", 1))
        for name, long in ROWS
        for text in re.findall(r'"([a-z_]+: [^"]*)"', long)
        if not text.startswith(("options:", "rewards:"))
    ]
    assert sorted(written) == sorted(SETTINGS)


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_a_setting_for_the_sources_behaviour_is_accepted(name: str, setting: str) -> None:
    recipe = "grpo" if name.startswith("configs") else name
    config = load_config("quickstart", [f"algorithm.recipe={recipe}", f"algorithm.{setting}"])
    build_objective(config.algorithm, completions=8, max_new_tokens=64)


def test_reinforce_pp_takes_moments_over_completions() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0]])
    here = advantages.reinforce_pp(rewards)
    assert here.tolist()[0] == pytest.approx([1.155, -0.577, -0.577], abs=5e-4)
    tokens = rewards[0].repeat_interleave(torch.tensor([10, 10, 40]))
    theirs = (rewards[0] - tokens.mean()) / tokens.std()
    assert theirs.tolist() == pytest.approx([2.217, -0.443, -0.443], abs=5e-4)
    by_token = advantages.reinforce_pp(rewards, torch.tensor([[10, 10, 40]]), over="tokens")
    assert by_token[0].tolist() == pytest.approx(theirs.tolist(), abs=1e-5)


def test_mmr1_scales_its_scores_over_the_rows_that_have_one() -> None:
    right = (0, 1, 4, 7, 8)
    accuracy = torch.tensor([[1.0] * count + [0.0] * (8 - count) for count in right])
    scores = selection.variance_aware(accuracy, torch.tensor([0.5, 0.6, 0.6, 0.5, 0.4]))
    scaled = scores - scores.min()
    assert (scaled / scaled.sum()).tolist() == pytest.approx([0.040, 0.258, 0.485, 0.217, 0], abs=6e-4)
    drawn: Counter[int] = Counter()
    for seed in range(300):
        sampler = ScoredPromptSampler(9, seed, share=1.0, scaled=True)
        sampler.update_scores(range(5), scores.tolist())
        drawn.update(sampler.take(1))
    assert drawn[4] == 0
    found = [drawn[row] / 300 for row in range(5)]
    assert found == pytest.approx([0.040, 0.258, 0.485, 0.217, 0], abs=0.08)


def test_mmr1_counts_distinct_trigrams() -> None:
    assert load_config("quickstart", ["algorithm.recipe=mmr1"]).algorithm.prompts.options["ngram"] == 3
    assert selection.distinct_share([[1, 2, 1, 2]], 2) == 2 / 3
    assert selection.distinct_share([[1, 2, 1, 2]], 3) == 1.0


def test_a_batch_draws_by_score_without_replacement_and_without_its_uniform_rows() -> None:
    sampler = ScoredPromptSampler(8, share=0.5)
    sampler.update_scores([0, 1, 2, 3], [100.0, 1.0, 1.0, 1.0])
    for _ in range(20):
        rows = sampler.take(4)
        assert len({*rows}) == 4
    assert ScoredPromptSampler(8).scores.tolist() == pytest.approx([float("nan")] * 8, nan_ok=True)


def test_tokens_without_entropy_never_count() -> None:
    entropy = torch.zeros(100)
    entropy[:15] = 1.0
    assert token_weights.forking_tokens(entropy).sum() == 15
    entropy[:25] = 1.0
    assert token_weights.forking_tokens(entropy).sum() == 25


@pytest.mark.parametrize(
    ("tokens", "share", "chosen"), [(100, 2e-4, 1), (9_999, 2e-4, 1), (15_000, 2e-4, 3), (9_999, 2e-3, 19)]
)
def test_kl_cov_takes_a_single_token_of_a_small_mini_batch(tokens: int, share: float, chosen: int) -> None:
    values = torch.arange(tokens, dtype=torch.float64)
    assert token_weights.largest_covariances(values, values, share=share).sum() == chosen


def test_clip_cov_drops_at_least_one_token_of_a_mini_batch() -> None:
    values = torch.linspace(-2, 2, 100)
    assert (token_weights.clip_cov(values, values, 0) == 0).sum() == 1


def test_the_penalty_of_one_is_two_thirds_of_the_default_rules_range() -> None:
    largest = sum(rule.weight for rule in load_config("quickstart").rewards)
    recipe = load_config("quickstart", ["algorithm.recipe=dapo"]).algorithm
    objective = build_objective(recipe, completions=8, max_new_tokens=100)
    lowest = objective.shape(torch.zeros(1), torch.tensor([100])).item()
    assert (largest, lowest) == (1.5, -1.0)


def test_satori_does_not_stem_or_divide_contractions() -> None:
    assert rouge_l("running dogs", Example("run dog")).score == 0.0
    assert bleu("isn't", Example("isn't"), order=2, orders="fixed", punctuation=True).score == pytest.approx(
        0.1**0.5
    )


def test_satori_forgives_the_spelling_of_an_answer_and_knows_one() -> None:
    row = Example("dog", meta={"possible_answers": ["dog", "puppy"]})
    assert exact("<answer>A Dog.</answer>", row).score == 1.0
    assert exact("<answer>puppy</answer>", row).score == 0.0

    def theirs(answer: str) -> float | None:
        return exact(f"<answer>{answer}</answer>", row, gold="possible_answers", normalise=False).score

    assert (theirs("puppy"), theirs("Dog")) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<caption>x</caption><bbox>none</bbox><answer>y</answer>", 1.0),
        ("<caption></caption><bbox>[[1, 2, 3, 4]]</bbox><answer>y</answer>", 0.0),
        ("<caption>x</caption><bbox>[[1, 2, 3, 4]]</bbox><answer>y</answer><answer>y</answer>", 0.0),
    ],
)
def test_satori_asks_for_filled_sections_without_brackets(text: str, score: float) -> None:
    assert format_tags(text, Example("y"), tags=("caption", "bbox", "answer")).score == score


def test_satori_takes_the_settings_of_its_source() -> None:
    shipped = load_config("satori")
    assert (shipped.training.mini_batch_prompts, shipped.rollout.top_k) == (16, 0)
    assert shipped.algorithm.recipe == "cpgd"
    settings = (
        *("algorithm.recipe=grpo", "algorithm.regularizers=[{name: kl, coefficient: 0.001}]"),
        *("algorithm.selection=[]", "rollout.top_k=50", "training.mini_batch_prompts=2", "policy.lora=null"),
        *("policy.dtype=float32", "training.learning_rate=1.0e-6"),
        "rewards.0.options={gold: possible_answers, normalise: false}",
    )
    config = load_config("satori", settings)
    assert config.policy.lora is None
    assert (config.training.mini_batch_prompts, config.rollout.completions) == (2, 16)
    assert config.rewards[0].options == {"gold": "possible_answers", "normalise": False}
