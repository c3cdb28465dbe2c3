"""Write a short track of face-tracking weights, as a recording would be: blink, smile, speak, look, and back.

    python make_track.py track.json

The format is that of the viewer: ``fps``, ``names`` of ARKit's shapes, ``frames`` with a weight 0..1 for each name.
"""

from __future__ import annotations

import json
import sys
from math import cos, pi, sin
from pathlib import Path

FPS, SECONDS = 30, 6.0
BOTH = ("Left", "Right")


def bump(time: float, begin: float, end: float) -> float:
    """Rise from 0 to 1 and fall again between two times in seconds."""
    return 0.0 if not begin < time < end else (1 - cos(2 * pi * (time - begin) / (end - begin))) / 2


def weights(time: float) -> dict[str, float]:
    """Weights of the shapes at a time in seconds."""
    blink = max(bump(time, begin, begin + 0.3) for begin in (0.3, 2.6, 4.9))
    smile, look = bump(time, 0.8, 2.6), bump(time, 3.4, 4.4) - bump(time, 4.4, 5.4)
    speak = bump(time, 2.4, 4.0) * (0.5 + 0.5 * sin(2 * pi * 3 * time))
    shapes = {f"eyeBlink{side}": blink for side in BOTH}
    shapes |= {f"mouthSmile{side}": smile for side in BOTH} | {f"cheekSquint{side}": 0.6 * smile for side in BOTH}
    shapes |= {"jawOpen": 0.45 * speak, "mouthFunnel": 0.3 * speak, "mouthPucker": 0.4 * bump(time, 3.0, 3.8)}
    # Toward the person's left, then toward the right.
    shapes |= {"eyeLookOutLeft": max(look, 0), "eyeLookInRight": max(look, 0)}
    shapes |= {"eyeLookInLeft": max(-look, 0), "eyeLookOutRight": max(-look, 0)}
    shapes["browInnerUp"] = bump(time, 4.2, 5.8)
    return shapes


def main(path: Path) -> None:
    """Write the track."""
    frames = [weights(frame / FPS) for frame in range(round(FPS * SECONDS) + 1)]
    rows = [[round(value, 3) for value in frame.values()] for frame in frames]
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{{"fps": {FPS}, "names": {json.dumps(list(frames[0]))}, "frames": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
