"""Lips that a photograph shows closed, closed.

The regressor's landmarks are some millimetres off; between lips that is a slit with teeth in it. Face model 1 hid it
behind a patch of skin, the whole head would show it. How far lips are apart is a linear function of the coefficients,
and so is what ``mouthClose`` takes from it.
"""

from __future__ import annotations

from head import F32, Head

# Inner lips in iBUG-68: three above and the three below them.
_UPPER, _LOWER = [61, 62, 63], [67, 66, 65]
# Decimetres further apart than in the neutral face, up to which lips count as closed: on eight photographs closed lips
# came out 0 to 4 mm apart, smiles that show teeth 9 and 10.
CLOSED_DM = 0.05
# How far closed lips overlap, in decimetres: their middle touches before their sides do.
OVERLAP_DM = 0.006
MOUTH_CLOSE = "mouthClose"
# Decimetres that a smile shows of the upper gums at most, and by how much teeth are raised at most for that.
GUMS_DM, RAISED_DM = 0.004, 0.045


def lip_gap(head: Head, vertices: F32) -> float:
    """Measure the opening between the inner lips of a shape [N, 3] or displacement: mean height in decimetres."""
    upper, lower = vertices[head.landmarks[_UPPER], 1], vertices[head.landmarks[_LOWER], 1]
    return float((upper - lower).mean())


def closing(head: Head, neutral: F32, expressive: F32, closed: float = CLOSED_DM) -> float:
    """Compute how much of ``mouthClose`` has to be added for lips that are hardly open to close.

    Args:
        head: what the shapes are of.
        neutral: float32 [N, 3] decimetres, the shape without expression.
        expressive: float32 [N, 3], the shape with it.
        closed: decimetres beyond the neutral shape's gap up to which lips count as closed.

    Returns:
        0 where the mouth is open.
    """
    gap = lip_gap(head, expressive)
    if gap - lip_gap(head, neutral) >= closed:
        return 0.0
    closes = -lip_gap(head, head.expression[head.expression_names.index(MOUTH_CLOSE)])
    return max(0.0, gap + OVERLAP_DM) / closes


def raise_teeth(head: Head, vertices: F32) -> F32:
    """Raise upper teeth and gums to an upper lip that a smile has lifted above them.

    The statistics tie teeth to the skull: smiles would show some millimetres of gums that photographs do not.

    Args:
        head: what the shape is of.
        vertices: float32 [N, 3], decimetres, head frame.

    Returns:
        [N, 3]; the shape itself where the lip covers the gums.
    """
    lip = float(vertices[head.landmarks[_UPPER], 1].max())
    shown = lip - float(vertices[head.gum_line, 1].mean()) - GUMS_DM
    if shown <= 0:
        return vertices
    raised = vertices.copy()
    raised[:, 1] += min(shown, RAISED_DM) * head.upper_jaw
    return raised
