"""Changed pictures: what changes, what does not, and that draws depend on the seed alone."""

from __future__ import annotations

import pytest
import torch

from mm_cpgd.errors import UserError
from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.visual.changed import PictureChange, PixelScale, changed_prompt, noise_scales

SCALE = PixelScale(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.25, 0.2, 0.1]), patch=2)
BLACK = torch.tensor([-2.0, -2.0, -3.0])


def packed(rows: int = 24) -> EncodedPrompt:
    """Two images of 16 and 8 patches of 3 channels x 4 values, as the Qwen family packs them."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(rows, 3, 4, generator=generator)
    pixels = (pixels - SCALE.mean.view(3, 1)) / SCALE.std.view(3, 1)
    grid = torch.tensor([[1, 4, 4], [1, 2, 4]])
    vision = {"pixel_values": pixels.flatten(1), "image_grid_thw": grid}
    return EncodedPrompt(torch.arange(9), torch.arange(9).unsqueeze(0), vision=vision)


def whole() -> EncodedPrompt:
    """One image of 3 x 5 x 6 pixels, as the LLaVA family has it: 3 x 3 patches, the last row cut."""
    pixels = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    return EncodedPrompt(torch.arange(3), torch.arange(3).unsqueeze(0), vision={"pixel_values": pixels})


def test_a_share_of_the_patches_is_black_and_the_others_stay():
    prompt = packed()
    found = changed_prompt(prompt, PictureChange("mask", share=0.5), SCALE, "1/1/0")
    before, after = prompt.vision["pixel_values"], found.vision["pixel_values"]
    black = (after == BLACK.repeat_interleave(4)).all(1)
    assert 4 < int(black.sum()) < 20
    assert torch.equal(after[~black], before[~black])
    assert found.input_ids is prompt.input_ids
    assert found.positions is prompt.positions
    assert torch.equal(found.vision["image_grid_thw"], prompt.vision["image_grid_thw"])
    # The prompt itself does not change.
    assert torch.equal(before, packed().vision["pixel_values"])


@pytest.mark.parametrize("make", [packed, whole])
def test_with_all_patches_masked_the_picture_is_black(make):
    after = changed_prompt(make(), PictureChange("mask", share=1.0), SCALE, "a").vision["pixel_values"]
    by_channel = after.unflatten(1, (3, 4)) if after.dim() == 2 else after.flatten(2)
    torch.testing.assert_close(by_channel, BLACK.view(3, 1).expand_as(by_channel))


def test_whole_images_are_masked_by_squares():
    prompt = whole()
    after = changed_prompt(prompt, PictureChange("mask", share=0.5), SCALE, "b").vision["pixel_values"]
    changed = (after != prompt.vision["pixel_values"]).any(1)[0]
    for row, column in ((0, 0), (0, 2), (2, 4)):
        square = changed[row : row + 2, column : column + 2]
        assert bool(square.all()) == bool(square.any())
    assert changed.any()
    assert not changed.all()


def test_a_blank_picture_is_grey():
    after = changed_prompt(packed(), PictureChange("blank"), SCALE, "a").vision["pixel_values"]
    raw = after.unflatten(1, (3, 4)) * SCALE.std.view(3, 1) + SCALE.mean.view(3, 1)
    torch.testing.assert_close(raw, torch.full_like(raw, 0.5))


def test_patches_are_shuffled_within_each_image():
    prompt = packed()
    before = prompt.vision["pixel_values"]
    after = changed_prompt(prompt, PictureChange("shuffle"), SCALE, "a").vision["pixel_values"]
    assert not torch.equal(before, after)
    for image in (slice(0, 16), slice(16, 24)):
        assert sorted(before[image].tolist()) == sorted(after[image].tolist())


def test_squares_of_whole_images_are_shuffled_and_a_margin_stays():
    prompt = whole()
    before = prompt.vision["pixel_values"]
    after = changed_prompt(prompt, PictureChange("shuffle"), SCALE, "a").vision["pixel_values"]
    assert not torch.equal(before, after)
    assert torch.equal(before[..., 4:, :], after[..., 4:, :])

    def squares(image: torch.Tensor) -> list[list[float]]:
        return sorted(image[0, :, y : y + 2, x : x + 2].flatten().tolist() for y in (0, 2) for x in (0, 2, 4))

    assert squares(before) == squares(after)


def test_noise_follows_the_diffusion_and_stays_in_the_range_of_pixels():
    # β is symmetric about the middle: its mean over all steps is (1e-5 + 0.5e-2) / 2.
    signal, spread = noise_scales(999)
    assert signal**2 + spread**2 == pytest.approx(1)
    assert signal**2 == pytest.approx(torch.tensor(-1000 * (1e-5 + 0.5e-2) / 2).exp().item(), rel=0.01)
    prompt = packed()
    after = changed_prompt(prompt, PictureChange("noise", steps=500), SCALE, "a").vision["pixel_values"]
    raw = after.unflatten(1, (3, 4)) * SCALE.std.view(3, 1) + SCALE.mean.view(3, 1)
    assert float(raw.min()) > -1e-6
    assert float(raw.max()) < 1 + 1e-6
    difference = (after - prompt.vision["pixel_values"]).abs().mean()
    little = changed_prompt(prompt, PictureChange("noise", steps=50), SCALE, "a").vision["pixel_values"]
    assert 0 < (little - prompt.vision["pixel_values"]).abs().mean() < difference


@pytest.mark.parametrize("how", ["mask", "shuffle", "noise"])
def test_the_draw_depends_on_the_seed_alone(how):
    draws = [
        changed_prompt(packed(), PictureChange(how), SCALE, seed).vision["pixel_values"]
        for seed in ("1/1/0", "1/1/0", "1/2/0")
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_frames_of_videos_are_changed_and_prompts_without_pictures_are_not():
    prompt = packed()
    frames = {
        "pixel_values_videos": prompt.vision["pixel_values"],
        "video_grid_thw": torch.tensor([[3, 2, 4]]),
    }
    video = EncodedPrompt(prompt.input_ids, prompt.positions, vision=frames)
    after = changed_prompt(video, PictureChange("blank"), SCALE, "a").vision
    assert not torch.equal(after["pixel_values_videos"], frames["pixel_values_videos"])
    text = EncodedPrompt(prompt.input_ids, prompt.positions)
    assert changed_prompt(text, PictureChange("blank"), SCALE, "a") is text


def test_pixels_in_an_unknown_layout_are_refused():
    odd = EncodedPrompt(
        torch.arange(3), torch.arange(3).unsqueeze(0), vision={"pixel_values": torch.zeros(2, 5, 7)}
    )
    with pytest.raises(UserError, match=r"pixels of shape \(2, 5, 7\)"):
        changed_prompt(odd, PictureChange(), SCALE, "a")
