"""What a photograph does not show of a person's skin: from the other side, from the albedo, and from a small U-Net.

Colours are completed as *ratios* to the mean albedo: the albedo knows where lips, lids and nostrils are, the ratio is
this person's tone under this light, which is smooth and may be continued where nothing was seen. Continuing a ratio
from all sides is a membrane as of gradient-domain cloning, so that no seam shows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

GAIN_LOW, GAIN_HIGH = 0.5, 2.0  # of the light between both sides of a face; outside of it the ratio is not of light
# Weight of the person's mean tone against that of a neighbourhood wholly seen, at every level of the pyramid: how soon
# what lies far from everything seen forgets the shade at the border of what was seen.
FORGETTING = 0.02
# Of the light that is fitted: ridge, as a share of what was seen, and how far it may go from the mean tone. Going
# further, and following light from the front, comes nearer to exact heads in one light, but in a photograph with a
# flash the face would be a bright mask on a dark head.
RIDGE = 0.02
DARKEST, BRIGHTEST = 0.8, 1.2
# Share of its colour that plain skin lacks against the cheeks, and the saturations (of the brightest of the three
# channels, the share that the darkest lacks) from which on it does and does so wholly: pale skin has no red to lack.
PALER, SATURATED = 0.3, (0.25, 0.5)
LUMA = (0.299, 0.587, 0.114)


def fill(
    small: torch.Tensor,
    small_seen: torch.Tensor,
    shaded: torch.Tensor,
    back: torch.Tensor,
    unet: UNet | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Complete a small texture.

    Args:
        small: (B, 3, s, s) 0..255, colours times visibility.
        small_seen: (B, 1, s, s) 0..1, visibility.
        shaded: (B, 3, s, s) above 0, the mean person's albedo in this person's tone under this light.
        back: (1, 1, s, s) 0..1, where both sides become alike and ``unet`` is not asked, because they meet at the back
            of the head.
        unet: corrects what neither side shows; None leaves it as it is filled.

    Returns:
        (B, 3, s, s): colours for texels whose mirrored one is unseen as well; with ``unet`` they may leave 0..255.
        (B, 3, s, s): by what the colours of the mirrored side are multiplied to be this side's.
    """
    other, other_seen = small.flip(3), small_seen.flip(3)
    # Light between the sides: known where both are seen, continued elsewhere.
    both = small_seen * other_seen
    ratio = (small * other_seen + both) / (other * small_seen + both).clamp(min=1e-3)
    gain = pull_push(both, ratio.clamp(GAIN_LOW, GAIN_HIGH) * both, torch.ones_like(shaded[:, :1, :1, :1]))
    # The mirrored side counts only as far as the texel itself is unseen.
    known = small_seen + other_seen * (1 - small_seen)
    weighted = small + other * gain * (1 - small_seen)
    # Squared: at the rim, where little is seen, colours mix with what lies beside the skin.
    ratio = pull_push(known * known, known * weighted / shaded, torch.ones_like(shaded[:, :1, :1, :1]))
    guess = ratio * shaded
    guess = guess + (guess.flip(3) - guess) * (back / 2)
    if unet is None:
        return guess, gain
    # At the back both borders of the chart meet, and at a border the network sees nothing of the other.
    return guess + unet(weighted + guess * (1 - known), small_seen) * (1 - back), gain


def plainer(colours: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """Make skin beyond the face plainer: the albedo model knows the face, and has the cheeks' red everywhere else.

    Args:
        colours: (B, 3, s, s).
        plain: (1, 1, s, s) 0..1, where skin is plain.
    """
    red, green, blue = (part * weight for part, weight in zip(colours.split(1, 1), LUMA, strict=True))
    grey = red + green + blue
    # Not `amax` and `amin`: runtimes are slow at reducing an axis of three.
    red, green, blue = colours.split(1, 1)
    brightest = torch.maximum(torch.maximum(red, green), blue)
    darkest = torch.minimum(torch.minimum(red, green), blue)
    low, high = SATURATED
    saturated = ((1 - darkest / brightest.clamp(min=1) - low) / (high - low)).clamp(0, 1)
    paler: torch.Tensor = colours + plain * PALER * saturated * (grey - colours)
    return paler


def fit_light(
    small: torch.Tensor, small_seen: torch.Tensor, albedo: torch.Tensor, tone: torch.Tensor, basis: torch.Tensor
) -> torch.Tensor:
    """Fit a white light, constant plus linear in the normal, to what was seen.

    White, because a light of another colour that is continued around the head would turn an ear blue.

    Args:
        small, small_seen: as of `fill`.
        albedo: (1, 3, s, s) above 0, of the mean person.
        tone: (B, 3, 1, 1), the person's colour over the albedo's, in the mean.
        basis: (1, 3, s, s), 1 and the normal's parts to the right and up.

    Returns:
        (B, 3, s, s), by what the albedo is multiplied: the tone in brighter and darker.
    """
    rows = basis.flatten(2)
    weighted = rows * small_seen.flatten(2)
    count = small_seen.sum((1, 2, 3))[:, None, None]
    eye = torch.eye(rows.shape[1], dtype=rows.dtype)
    # Normal equations beside their right side, which is drawn to the mean tone and to no light from any side.
    apart = (small / (albedo * tone) - small_seen).mean(1, keepdim=True).flatten(2)
    matrix = weighted @ rows.transpose(1, 2) + eye * (RIDGE * count + 1)
    system = torch.cat([matrix, rows @ apart.transpose(1, 2)], 2)
    for k in range(rows.shape[1]):  # Gauss and Jordan's elimination; the matrix is positive definite
        row = system[:, k : k + 1] / system[:, k : k + 1, k : k + 1]
        system = system - (system[:, :, k : k + 1] - eye[:, k : k + 1]) * row
    light = (system[:, :, rows.shape[1] :].transpose(1, 2) @ rows).view_as(small_seen)
    return tone * (1 + light).clamp(DARKEST, BRIGHTEST)


def pull_push(weight: torch.Tensor, total: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Interpolate scattered values by pull-push (Gortler et al. 1996): average down the pyramid, fill on the way up.

    Args:
        weight: (B, 1, s, s) 0..1, how much of a cell is known.
        total: (B, C, s, s), values times the weight.
        mean: (B, C or 1, 1, 1), what is approached far from everything known.

    Returns:
        (B, C, s, s): the values where they are known, a smooth continuation elsewhere.
    """
    levels = [(weight, total)]
    while levels[-1][0].shape[-1] > 1:
        weight, total = levels[-1]
        levels.append((F.avg_pool2d(weight, 2), F.avg_pool2d(total, 2)))
    guess = mean.expand_as(levels[-1][1])
    for weight, total in reversed(levels):
        if weight.shape[-1] > 1:
            guess = F.interpolate(guess, scale_factor=2, mode="bilinear")
        trust = (weight * 4).clamp(0, 1)  # from a quarter known on, a cell keeps its own value
        # By the weight its own value, total / weight; by the rest of it that with some of the mean, (total + f mean) /
        # (weight + f). Put together by what is multiplied by the total and by the mean: one channel each.
        share = trust / (weight + FORGETTING)
        guess = total * (share * (1 + FORGETTING)) + mean * (share * (FORGETTING * (1 - weight))) + guess * (1 - trust)
    return guess


def _block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Correct filled colours, at 128 x 128 texels and mostly computed at 64 x 64: about 0.1 GMAC."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(nn.Conv2d(4, w, 4, 2, 1), nn.ReLU(inplace=True), _block(w, w))
        self.down1 = nn.Sequential(_block(w, 2 * w, 2), _block(2 * w, 2 * w))
        self.down2 = nn.Sequential(_block(2 * w, 3 * w, 2), _block(3 * w, 3 * w))
        self.down3 = nn.Sequential(_block(3 * w, 4 * w, 2), _block(4 * w, 4 * w))
        self.up2 = _block(4 * w + 3 * w, 3 * w)
        self.up1 = _block(3 * w + 2 * w, 2 * w)
        self.up0 = _block(2 * w + w, w)
        self.head = nn.Conv2d(w, 12, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, filled: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Compute what to add to filled colours (B, 3, 128, 128) 0..255, given visibility (B, 1, 128, 128) 0..1."""
        a = self.stem(torch.cat([filled / 255 - 0.5, seen], 1))
        b = self.down1(a)
        c = self.down2(b)
        d = self.down3(c)
        c = self.up2(torch.cat([F.interpolate(d, scale_factor=2, mode="bilinear"), c], 1))
        b = self.up1(torch.cat([F.interpolate(c, scale_factor=2, mode="bilinear"), b], 1))
        a = self.up0(torch.cat([F.interpolate(b, scale_factor=2, mode="bilinear"), a], 1))
        return F.pixel_shuffle(self.head(a), 2) * 255
