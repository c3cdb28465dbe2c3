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
# A test certificate for what `fuse` makes, of a test root whose key is not kept: it says so in its name. Put a real one in
# its place before anybody else sees a result.
install -d -m 755 "$folder/fusion"
[ -s "$folder/fusion/key.pem" ] || (
  cd "$folder/fusion"
  test_name="/O=Face3D TEST certificate, do not trust"
  curve="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
  # shellcheck disable=SC2086
  openssl req -x509 $curve -days 365 -subj "$test_name/CN=Face3D test root" -addext "keyUsage=critical,keyCertSign" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -keyout root.key -out root.pem 2> /dev/null
  # shellcheck disable=SC2086
  openssl req -new $curve -subj "$test_name/CN=Face3D test signer" -keyout key.pem -out request.pem 2> /dev/null
  openssl x509 -req -in request.pem -CA root.pem -CAkey root.key -CAcreateserial -days 364 -out certificate.pem \
    -extfile <(printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
    "extendedKeyUsage=emailProtection" "authorityKeyIdentifier=keyid" "subjectKeyIdentifier=hash") 2> /dev/null
  rm -f root.key root.srl request.pem
  chmod 644 ./*.pem
)
echo "in $folder: $(cd "$folder" && ls | tr '\n' ' ')"
