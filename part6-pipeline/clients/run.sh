#!/usr/bin/env bash
# Other people's clients against this server: part6-pipeline/clients/run.sh [NAME…]
# They go into a virtual environment of their own, the folder CLIENTS or one beside the build.
# EXAMPLES says how many each of those tries that draw what they ask: 40, or 200 for a thorough look.
set -euo pipefail
cd "$(dirname "$0")"
home=${CLIENTS:-../../target/clients}
examples=${EXAMPLES:-40}
if ! cmp -s requirements.txt "$home/requirements.txt"; then
  python3 -m venv "$home"
  "$home/bin/pip" install --quiet --requirement requirements.txt
  cp requirements.txt "$home/requirements.txt"
fi
server=${SERVER:-}
if [ -z "$server" ]; then
  cargo build --quiet --release --package part6-pipeline
  server=../../target/release/part6-pipeline
fi
log=$(mktemp)
"$server" serve --port 0 --log warn --alias tiny --dtype f32 2>"$log" &
process=$!
trap 'kill "$process" 2>/dev/null || true; rm -f "$log"' EXIT
url=
for _ in $(seq 600); do
  if ! kill -0 "$process" 2>/dev/null; then break; fi
  url=$(sed -n 's/.*listening on //p' "$log")
  if grep -q 'is ready' "$log"; then break; fi
  sleep 0.1
done
if ! grep -q 'is ready' "$log"; then
  cat "$log" >&2
  exit 1
fi

failed=0
run() {
  echo "== $*"
  "$@" || failed=1
}
at_home() { (cd "$home" && "$@"); } # for those that write where they run
names=("$@")
if [ ${#names[@]} = 0 ]; then names=(openai litellm pydantic_ai llm schemas schemathesis node); fi
for name in "${names[@]}"; do
  case $name in
  schemathesis)
    run at_home bin/schemathesis run --url "$url" --max-examples "$examples" --request-timeout 60 \
      --checks all --exclude-checks unsupported_method,positive_data_acceptance "$url/openapi.json"
    ;;
  schemas) run "$home/bin/python" schemas_python.py "$url" "$examples" ;;
  node)
    if command -v npm >/dev/null; then
      cp node/package*.json node/*.mjs "$home/"
      npm ci --silent --no-audit --no-fund --prefix "$home"
      run node "$home/openai_node.mjs" "$url"
      run node "$home/ai_node.mjs" "$url"
    else
      echo "no npm: the clients for Node are left out" >&2
    fi
    ;;
  lm_eval | aiperf) # not among the names that are taken where none is given: they bring 760 MB and 1.2 GB
    python3 -m venv "$home/$name"
    "$home/$name/bin/pip" install --quiet --requirement "requirements-${name/_/-}.txt"
    run "$home/$name/bin/python" "${name}_python.py" "$url"
    ;;
  *) run "$home/bin/python" "${name}_python.py" "$url" ;;
  esac
done
if ! kill -0 "$process" 2>/dev/null; then
  echo "the server has ended:" >&2
  cat "$log" >&2
  failed=1
fi
exit "$failed"
