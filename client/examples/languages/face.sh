#!/usr/bin/env bash
# A photograph -> numbers as JSON, and face.glb, by curl.
#
#   bash face.sh http://localhost:8000 portrait.jpg face.glb
set -euo pipefail
server=$1 photo=$2 out=$3
answer=$(mktemp -d)
trap 'rm -rf "$answer"' EXIT

# Ask with a head in JSON, and the picture behind its length in four bytes (little-endian): infer OUTPUTS FILE
infer() {
  local size head length
  size=$(wc -c < "$photo")
  head='{"inputs":[{"name":"image","datatype":"BYTES","shape":[1,1],"parameters":{"binary_data_size":'$((size + 4))'}}],
"outputs":'$1'}'
  length=$(printf '\\x%02x' $((size & 255)) $((size >> 8 & 255)) $((size >> 16 & 255)) $((size >> 24)))
  { printf %s "$head"; printf "$length"; cat "$photo"; } > "$answer/request"
  curl --fail-with-body -s -D "$answer/head" -o "$2" -H "Inference-Header-Content-Length: ${#head}" \
    -H "Content-Type: application/octet-stream" --data-binary "@$answer/request" "$server/v2/models/face3d/infer" ||
    { cat "$2" >&2; exit 1; }
}

# Plain JSON comes back where no output is a file.
infer '[{"name":"face"},{"name":"warnings"}]' "$answer/numbers"
cat "$answer/numbers"; echo

# Bytes come back behind a head, whose length is in a header; those of the mesh have their own length in front.
infer '[{"name":"mesh","parameters":{"binary_data":true}}]' "$answer/mesh"
head=$(sed -n 's/^inference-header-content-length: *\([0-9]*\).*/\1/Ip' "$answer/head")
tail -c +$((head + 5)) "$answer/mesh" > "$out"
