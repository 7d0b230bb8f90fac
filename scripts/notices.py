#!/usr/bin/env python3
"""What a program is made of, for its packages: notices.py [OPTIONS] CRATE[=NAME]...

Writes into --out, for one --target and from Cargo.lock alone, without a network once cargo has fetched:

  NAME.cdx.json       for each CRATE: its bill of materials (CycloneDX 1.6), with what is linked into it and
                      nothing that only builds it
  THIRD-PARTY.txt     the licences of others' crates in all of them, each text once
  RUST-LIBRARY.html   those of Rust's standard library, where the toolchain has them

The same sources and toolchain give the same bytes; the time is SOURCE_DATE_EPOCH.
"""

import argparse
import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Models that are compiled in, by crate.
MODELS = {
    "edge-classify": ["mobilenet_v2.edge"],
    "edge-trainer": ["mobilenet_v2.mpk", "mobilenet_v1_025.mpk", "resnet_20_cifar10.mpk", "resnet_8_cifar10.mpk"],
    "edge-web": ["mobilenet_v2.edge"],
}
MUSL = """\
Copyright © 2005-2020 Rich Felker, et al.

Permission is hereby granted, free of charge, to any person obtaining
a copy of this software and associated documentation files (the
"Software"), to deal in the Software without restriction, including
without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to
permit persons to whom the Software is furnished to do so, subject to
the following conditions:

The above copyright notice and this permission notice shall be
included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND,
EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense|patents)", re.IGNORECASE)
# Where MIT is offered and its text is there, these are not needed.
OTHER_CHOICE = re.compile(r"(apache|unlicense|zlib|cc0|0bsd|mit-?0|boost|bsl)", re.IGNORECASE)


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def cargo(args, *command: str) -> str:
    toolchain = [args.toolchain] if args.toolchain else []
    return output("cargo", *toolchain, *command, "--locked", "--manifest-path", args.manifest)


def linked(args, crate: str) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Name and version of all that is linked into a crate, itself first, with what each needs."""
    tree = cargo(args, "tree", "-p", crate, "--target", args.target, "-e", "normal,no-proc-macro",
                 "--prefix", "depth", "--format", " {p}")  # fmt: skip
    needs: dict[tuple[str, str], set[tuple[str, str]]] = {}
    above: list[tuple[str, str]] = []
    for line in tree.splitlines():
        found = re.match(r"(\d+) (\S+) v(\S+)", line)
        if not found:
            continue
        depth, package = int(found[1]), (found[2], found[3])
        needs.setdefault(package, set())
        del above[depth:]
        if above:
            needs[above[-1]].add(package)
        above.append(package)
    return needs


def expression(package: dict) -> str:
    # As cargo wrote it before SPDX.
    return (package["license"] or "").replace("/", " OR ").replace("  ", " ")


def texts(package: dict) -> list[tuple[str, str]]:
    """The licence files of a crate, without those that its user need not choose."""
    folder = Path(package["manifest_path"]).parent
    files = sorted(f for f in folder.iterdir() if f.is_file() and LICENCE_FILE.match(f.name))
    if package["license_file"]:
        files.append(folder / package["license_file"])
    offered = expression(package)
    if " AND " not in offered and "MIT" in offered.split(" OR "):
        mit = [f for f in files if "mit" in f.name.lower() and not OTHER_CHOICE.search(f.name)]
        if mit:
            files = [f for f in files if not OTHER_CHOICE.search(f.name)]
    found = {}
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip("\n")
        found[" ".join(text.split())] = text
    return list(found.items())


def workspace(package: dict) -> str | None:
    """Where a crate is developed, along with others."""
    return package["repository"] and re.sub(r"(/tree/.*|\.git|/)$", "", package["repository"])


def notices(args, packages: list[dict], models: list[str]) -> str:
    by_workspace: dict[str | None, dict] = {}
    for package in packages:
        if workspace(package) and texts(package):
            by_workspace.setdefault(workspace(package), package)
    groups: dict[str, tuple[str, list[str]]] = {}
    without = []
    for package in packages:
        name = f"{package['name']} {package['version']} ({expression(package)})"
        own = texts(package)
        if not own and (sibling := by_workspace.get(workspace(package))):
            # Some workspaces forget the text in some of their crates.
            own = texts(sibling)
        if not own:
            authors = ", ".join(re.sub(r" *<.*?>", "", a) for a in package["authors"]) or "its authors"
            without.append(f"{name}, by {authors}: {package['repository'] or 'no address given'}")
        for key, text in own:
            groups.setdefault(key, (text, []))[1].append(name)
    out = [
        "What others have made and these programs contain, and its licences. Ours: LICENSE-MIT, LICENSE-APACHE.",
    ]
    if models:
        out.append(
            "Built-in models: " + ", ".join(models) + ".\nMobileNetV2 and MobileNetV1 are Google's, under Apache-2.0 "
            "(LICENSE-APACHE), stored in another format and\notherwise unchanged; ResNets are ours."
        )
    rust = output("rustc", *([args.toolchain] if args.toolchain else []), "-V").strip()
    out.append(
        f"Rust's standard library ({rust}): MIT OR Apache-2.0, and parts of others:\n"
        "RUST-LIBRARY.html where it is beside this file, else https://www.rust-lang.org/policies/licenses"
    )
    if without:
        out.append(
            "Without a text of their own; what LICENSE-MIT permits where MIT is named, else LICENSE-APACHE,\n"
            "with the copyright of their authors:\n\n" + "\n".join(without)
        )
    if "-musl" in args.target:
        groups["musl"] = (MUSL.strip("\n"), [f"musl {musl_version(args) or ''}".strip() + " (MIT)"])
    for text, names in sorted(groups.values(), key=lambda group: group[1]):
        out.append("=" * 100 + "\n" + "\n".join(sorted(names)) + "\n" + "-" * 100 + "\n\n" + text)
    return "\n\n".join(out) + "\n"


def musl_version(args) -> str | None:
    sysroot = output("rustc", *([args.toolchain] if args.toolchain else []), "--print", "sysroot").strip()
    library = Path(sysroot) / "lib/rustlib" / args.target / "lib/self-contained/libc.a"
    found = re.search(rb"\0(1\.\d+\.\d+)\0", library.read_bytes()) if library.is_file() else None
    return found[1].decode() if found else None


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bill(args, crate: str, needs: dict, packages: dict, checksums: dict) -> dict:
    def ref(key: tuple[str, str]) -> str:
        kind = "pkg:cargo/" if packages[key]["source"] else "edge-resnet:"
        return f"{kind}{key[0]}@{key[1]}"

    def component(key: tuple[str, str]) -> dict:
        package = packages[key]
        made = {"type": "library", "bom-ref": ref(key), "name": key[0], "version": key[1]}
        if package["description"]:
            made["description"] = " ".join(package["description"].split())
        if key in checksums:
            made["hashes"] = [{"alg": "SHA-256", "content": checksums[key]}]
        if expression(package):
            made["licenses"] = [{"expression": expression(package)}]
        if package["source"]:
            made["purl"] = ref(key)
            if package["repository"]:
                made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return made

    rust = re.match(r"rustc (\S+)", output("rustc", *([args.toolchain] if args.toolchain else []), "-V"))[1]
    own, *others = needs
    program = component(own) | {"type": "application"}
    toolchain = [{"type": "library", "bom-ref": "rust-std", "name": "rust-std", "version": rust,
                  "licenses": [{"expression": "MIT OR Apache-2.0"}]}]  # fmt: skip
    if "-musl" in args.target:
        musl = {"type": "library", "bom-ref": "musl", "name": "musl", "licenses": [{"expression": "MIT"}]}
        toolchain.append(musl | ({"version": v} if (v := musl_version(args)) else {}))
    models = [
        {"type": "machine-learning-model", "bom-ref": f"model:{name}", "name": name,
         "hashes": [{"alg": "SHA-256", "content": sha256(ROOT / "models" / name)}]}
        | ({"licenses": [{"license": {"id": "Apache-2.0"}}]} if name.startswith("mobilenet") else {})
        for name in MODELS.get(crate, [])
    ]  # fmt: skip
    beside = [part["bom-ref"] for part in toolchain + models]
    time = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.UTC)
    made = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": program,
            "properties": [{"name": "cdx:rustc:sbom:target:triple", "value": args.target}],
        },
        "components": sorted((component(key) for key in others), key=lambda c: c["bom-ref"]) + toolchain + models,
        "dependencies": [
            {"ref": ref(key), "dependsOn": sorted(map(ref, needs[key])) + (beside if key == own else [])}
            for key in sorted(needs)
        ]
        + [{"ref": part} for part in beside],
    }
    # The same contents have the same number.
    number = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(made, sort_keys=True))
    return {"bomFormat": made.pop("bomFormat"), "serialNumber": f"urn:uuid:{number}"} | made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--manifest", default="Cargo.toml")
    parser.add_argument("--toolchain", default="")
    parser.add_argument("crates", nargs="+", metavar="CRATE[=NAME]")
    args = parser.parse_args()
    metadata = json.loads(cargo(args, "metadata", "--format-version", "1", "--filter-platform", args.target))
    packages = {(p["name"], p["version"]): p for p in metadata["packages"]}
    lock = tomllib.loads((ROOT / args.manifest).with_name("Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}
    args.out.mkdir(parents=True, exist_ok=True)
    others: dict[tuple[str, str], dict] = {}
    models: list[str] = []
    for named in args.crates:
        crate, _, name = named.partition("=")
        needs = linked(args, crate)
        made = bill(args, crate, needs, packages, checksums)
        (args.out / f"{name or crate}.cdx.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
        others |= {key: packages[key] for key in needs if packages[key]["source"]}
        models += [model for model in MODELS.get(crate, []) if model not in models]
    text = notices(args, [others[key] for key in sorted(others)], models)
    (args.out / "THIRD-PARTY.txt").write_text(text)
    sysroot = output("rustc", *([args.toolchain] if args.toolchain else []), "--print", "sysroot").strip()
    rust = Path(sysroot) / "share/doc/rust/COPYRIGHT-library.html"
    if rust.is_file():
        shutil.copyfile(rust, args.out / "RUST-LIBRARY.html")


if __name__ == "__main__":
    sys.exit(main())
