// A recorded track of face-tracking weights: {"fps": 30, "names": ["jawOpen", ...], "frames": [[0.1, ...], ...]},
// a row for each frame, 0..1, as ARKit's blendShapes give them.

const MOST = 600000; // numbers: a hundred minutes at thirty frames a second would be ten times as many

// Checks a parsed track; throws an Error that says what is wrong.
export function readTrack(data) {
  const { fps, names, frames } = data ?? {};
  if (!(fps > 0 && fps <= 1000)) throw new Error("its fps is no number above 0");
  if (!Array.isArray(names) || !names.length || !names.every((name) => typeof name === "string")) {
    throw new Error("it has no names of shapes");
  }
  if (!Array.isArray(frames) || frames.length < 2) throw new Error("it has fewer than two frames");
  if (frames.length * names.length > MOST) throw new Error("it is too long");
  for (const row of frames) {
    if (!Array.isArray(row) || row.length !== names.length || !row.every(Number.isFinite)) {
      throw new Error(`a frame has not ${names.length} numbers`);
    }
  }
  return {
    names,
    duration: (frames.length - 1) / fps,
    // Pairs of name and weight at a time in seconds, between two frames in proportion.
    at(seconds) {
      const place = Math.min(Math.max(seconds * fps, 0), frames.length - 1);
      const before = Math.min(Math.floor(place), frames.length - 2);
      const share = place - before;
      return names.map((name, k) => [name, frames[before][k] * (1 - share) + frames[before + 1][k] * share]);
    },
  };
}
