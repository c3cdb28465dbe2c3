#!/usr/bin/env bash
# Writes what docker-compose.yml reads as secrets; what is there already stays. The files can be read by the containers'
# users, so the folder is what keeps others out.
set -euo pipefail
folder=${1:?usage: make-secrets.sh FOLDER}
install -d -m 700 "$folder"
umask 022
for name in admin_key grafana_password; do
  [ -s "$folder/$name" ] || openssl rand -hex 32 > "$folder/$name"
done
# A certificate of its own making, for a first try; put a real one in its place.
[ -s "$folder/tls.key" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
  -subj "/CN=${FACE3D_HOST:-localhost}" -addext "subjectAltName=DNS:${FACE3D_HOST:-localhost},IP:127.0.0.1" \
  -keyout "$folder/tls.key" -out "$folder/tls.crt" 2> /dev/null
chmod 644 "$folder"/tls.key "$folder"/tls.crt
echo "in $folder: $(cd "$folder" && ls | tr '\n' ' ')"
