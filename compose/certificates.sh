#!/usr/bin/env bash
# Makes a private CA, and the certificates that it signs, for the services of the compose files; makes
# those again that expire within a month.
#
#   compose/certificates.sh .secrets/tls
#
#   ca.pem        what clients trust; it may be given away
#   ca.key        signs; it never leaves this folder, and no container gets it
#   NAME.pem      a certificate, the CA's and the private key, of one service
#
# Only this user gets into the folder. Within, the services' files are readable, because containers run
# as users of their own and get just the file that is theirs.
set -euo pipefail

folder=$1
DAYS=365
RENEW_WITHIN_S=$((30 * 24 * 3600))
CA_DAYS=3650

command -v openssl >/dev/null || {
    echo "openssl is missing; install it: apt-get install openssl" >&2
    exit 1
}

umask 077
mkdir -p "$folder"
chmod 0700 "$folder"
part=$(mktemp -d "$folder/part.XXXXXX")
trap 'rm -rf "$part"' EXIT

# Whether a certificate exists and stays valid long enough.
lasts() {
    [ -s "$1" ] && openssl x509 -in "$1" -noout -checkend "$RENEW_WITHIN_S" >/dev/null 2>&1
}

make_key() {
    openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"
}

make_ca() {
    make_key "$part/ca.key"
    openssl req -x509 -new -sha256 -days "$CA_DAYS" -key "$part/ca.key" -out "$part/ca.pem" \
        -subj "/CN=Synod of this machine" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0"
    rm -f "$folder"/*.pem
    mv "$part/ca.key" "$folder/ca.key"
    mv "$part/ca.pem" "$folder/ca.pem"
    chmod 0644 "$folder/ca.pem"
    echo "Made a private CA: $folder/ca.pem"
}

# make_certificate NAME SAN...
make_certificate() {
    local name=$1 names
    shift
    names=$(printf ',%s' "$@")
    make_key "$part/$name.key"
    openssl req -new -sha256 -key "$part/$name.key" -subj "/CN=$name" -out "$part/$name.csr"
    openssl x509 -req -sha256 -days "$DAYS" -in "$part/$name.csr" -out "$part/$name.crt" \
        -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
        -extfile <(printf '%s\n' "subjectAltName=${names#,}" "basicConstraints=critical,CA:FALSE" \
            "keyUsage=critical,digitalSignature" "extendedKeyUsage=serverAuth,clientAuth") \
        2>"$part/said" || { cat "$part/said" >&2; exit 1; }
    cat "$part/$name.crt" "$folder/ca.pem" "$part/$name.key" >"$part/$name.pem"
    chmod 0644 "$part/$name.pem"
    # At once: a container that starts meanwhile gets the former one or the new one.
    mv "$part/$name.pem" "$folder/$name.pem"
    echo "Made a certificate: $folder/$name.pem"
}

lasts "$folder/ca.pem" && [ -s "$folder/ca.key" ] || make_ca
lasts "$folder/rabbitmq.pem" || make_certificate rabbitmq \
    DNS:rabbitmq DNS:rabbitmq-1 DNS:rabbitmq-2 DNS:rabbitmq-3 DNS:localhost IP:127.0.0.1
lasts "$folder/gateway.pem" || make_certificate gateway \
    DNS:gateway-1 DNS:gateway-2 DNS:proxy DNS:localhost IP:127.0.0.1
