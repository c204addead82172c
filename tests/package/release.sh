#!/usr/bin/env bash
# Checks what would be released, and leaves it in dist/ with a bill of materials: release.sh PYTHON UV
set -euo pipefail
python=$1 uv=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

echo "the version and the changelog"
version=$("$python" -c 'import nemo_airflow; print(nemo_airflow.__version__)')
grep -q "^version = \"$version\"$" pyproject.toml || { echo "pyproject.toml has another version than nemo_airflow ($version)"; exit 1; }
grep -qE "^## \[($version|Unreleased)\]" CHANGELOG.md || { echo "CHANGELOG.md has no part for $version"; exit 1; }

echo "built twice, from two folders, with equal digests"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
for each in one two; do
  git clone --quiet --no-local . "$folder/$each"
  "$uv" build --quiet --out-dir "$folder/dist-$each" "$folder/$each"
done
digests() { (cd "$1" && sha256sum -- *.whl *.tar.gz); }
diff <(digests "$folder/dist-one") <(digests "$folder/dist-two")
rm -rf dist && mkdir dist
cp "$folder"/dist-one/*.whl "$folder"/dist-one/*.tar.gz dist/
digests dist
wheel=$(echo dist/*.whl)

echo "the description, as the package index shows it"
"$uv" venv --quiet --python "$python" "$folder/tools"
"$uv" pip install --quiet --python "$folder/tools/bin/python" --constraints constraints.txt --group release
"$folder/tools/bin/twine" check --strict dist/*.whl dist/*.tar.gz

echo "each extra can be installed, on each Python"
extras=$(sed -n '/^\[project.optional-dependencies\]/,/^$/s/^\([a-z0-9]*\) = .*/\1/p' pyproject.toml)
for release in 3.11 3.12 3.13; do
  for extra in $extras; do
    echo "nemo-airflow[$extra] @ file://$root/$wheel" |
      "$uv" pip compile --quiet --python "$python" --python-version "$release" --constraints constraints.txt --only-binary :all: - >"$folder/resolved.txt" ||
      { echo "nemo-airflow[$extra] cannot be resolved on Python $release"; exit 1; }
  done
  echo "  Python $release: $(wc -w <<<"$extras") extras"
done

echo "a bill of materials of the wheel with what it needs"
"$uv" venv --quiet --python "$python" "$folder/venv"
"$uv" pip install --quiet --python "$folder/venv/bin/python" --constraints constraints.txt "$wheel"
"$folder/tools/bin/cyclonedx-py" environment --output-reproducible --of JSON -o dist/sbom.cdx.json --pyproject pyproject.toml "$folder/venv/bin/python"
"$python" -c 'import json, sys; print(" ", len(json.load(open(sys.argv[1]))["components"]), "components in", sys.argv[1])' dist/sbom.cdx.json
