"""`selflong doctor`: is this machine fit to run the arrow? Each finding with its remedy, in a few seconds.

In: this machine, `pyproject.toml` (or the installed package's metadata). Out: findings. Nothing is sent anywhere.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

GIB = 2**30
# Measured: the CPU environment takes 2.3 GB, and the demo's products well below one.
MIN_DISK_GIB = 4
# The demo's own bound (its boxes stay below 4 GB).
MIN_RAM_GIB = 4
# On Hopper torch prefers cuDNN's attention only past 9.15.1 (sdp_utils.cpp); FlashAttention 2 is a half slower.
GOOD_CUDNN = 91_502
EXTRAS = {"eval": "selflong[eval]", "train": "selflong[train]"}

Installed = Callable[[str], str | None]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `remedy` is what to do, empty if nothing."""

    topic: str
    level: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Look at this machine. Never raises for what it finds, never prints a token."""
    requires_python, requirements = declared_bounds()
    return [
        check_python(requires_python, platform.python_version()),
        check_cores(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        check_ram(ram_bytes()),
        check_disk(shutil.disk_usage(Path.cwd()).free),
        *check_versions(requirements, installed_version),
        check_torch(),
        check_login(),
        check_offline(dict(os.environ)),
    ]


def render(findings: list[Finding]) -> str:
    """Return the findings as aligned lines, remedies below them, and a closing line that counts."""
    width = max(len(finding.topic) for finding in findings)
    lines = []
    for finding in findings:
        remedy = [f"-> {finding.remedy}"] if finding.remedy else []
        for number, text in enumerate([*textwrap.wrap(finding.found, 100), *remedy]):
            level, topic = (finding.level, finding.topic) if number == 0 else ("", "")
            lines.append(f"{level:<4}  {topic:<{width}}  {text}")
    counts = {level: sum(f.level == level for f in findings) for level in ("ok", "warn", "fail")}
    return "\n".join([*lines, "", ", ".join(f"{count} {level}" for level, count in counts.items())])


def declared_bounds() -> tuple[str, list[tuple[str, Requirement]]]:
    """Return the Python bound and `(extra or "", requirement)` of every dependency but those of development."""
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        groups = {"": project["dependencies"], **project["optional-dependencies"]}
        pairs = [(extra, Requirement(text)) for extra, texts in groups.items() for text in texts]
        return str(project["requires-python"]), [pair for pair in pairs if pair[0] != "dev"]
    metadata = importlib.metadata.metadata("selflong")
    pairs = [(_extra_of(text), Requirement(text)) for text in metadata.get_all("Requires-Dist") or []]
    return str(metadata["Requires-Python"]), [pair for pair in pairs if pair[0] != "dev"]


def _extra_of(text: str) -> str:
    """Return the extra that a `Requires-Dist` line belongs to: `trl>=1.16; extra == "train"` → `train`."""
    _, marker, extra = text.replace("'", '"').partition('extra == "')
    return extra.split('"')[0] if marker else ""


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_python(bound: str, version: str) -> Finding:
    """Python against `requires-python`."""
    if SpecifierSet(bound).contains(version, prereleases=True):
        return Finding("python", "ok", version)
    return Finding("python", "fail", f"{version}, but selflong needs {bound}", f"install Python {bound}")


def check_cores(cores: int) -> Finding:
    """Cores that this process may use."""
    if cores >= 2:
        return Finding("cores", "ok", str(cores))
    return Finding("cores", "warn", str(cores), "the demo is timed on 2 cores; expect about twice as long")


def check_ram(num_bytes: int) -> Finding:
    """Memory against what the demo takes."""
    found = f"{num_bytes / GIB:.1f} GiB"
    if num_bytes >= MIN_RAM_GIB * GIB:
        return Finding("memory", "ok", found)
    return Finding("memory", "warn", found, f"the demo stays below {MIN_RAM_GIB} GiB: close other programs")


def ram_bytes() -> int:
    """Return this machine's memory, or the container's limit where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


def check_disk(free_bytes: int) -> Finding:
    """Free space where products would go."""
    found = f"{free_bytes / GIB:.1f} GiB free here"
    if free_bytes >= MIN_DISK_GIB * GIB:
        return Finding("disk", "ok", found)
    return Finding(
        "disk", "warn", found, f"environment and demo take about {MIN_DISK_GIB} GiB: free some, or use --out"
    )


def check_versions(requirements: list[tuple[str, Requirement]], installed: Installed) -> Iterator[Finding]:
    """Each library against its bounds: one finding for each that is wrong, one for all that are right."""
    right = []
    missing: dict[str, list[str]] = {}
    for extra, requirement in requirements:
        version = installed(requirement.name)
        if version is None:
            missing.setdefault(extra, []).append(requirement.name)
        elif requirement.specifier.contains(version, prereleases=True):
            right.append(f"{requirement.name} {version}")
        else:
            yield _out_of_bounds(requirement, version)
    if right:
        yield Finding("libraries", "ok", ", ".join(dict.fromkeys(right)))
    for extra, names in missing.items():
        level: Literal["warn", "fail"] = "warn" if extra else "fail"
        package = EXTRAS.get(extra, f"selflong[{extra}]") if extra else "selflong"
        yield Finding("libraries", level, f"not installed: {', '.join(names)}", f"pip install '{package}'")


def _out_of_bounds(requirement: Requirement, version: str) -> Finding:
    why = ""
    if requirement.name == "xxhash" and not SpecifierSet("<4").contains(version):
        why = "; lighteval 0.13 hashes text, which xxhash 4 refuses, and only after everything was generated"
    found = f"{requirement.name} {version} is outside {requirement.specifier}{why}"
    return Finding("libraries", "fail", found, f"pip install '{requirement.name}{requirement.specifier}'")


def check_torch() -> Finding:
    """The device that torch sees, and on Hopper whether its cuDNN is one whose attention torch prefers."""
    if importlib.util.find_spec("torch") is None:
        return Finding("device", "warn", "torch is not installed", "pip install 'selflong[train,eval]'")
    try:
        import torch
    except (ImportError, OSError) as error:  # a wheel for another machine, or a missing shared library
        return Finding("device", "fail", f"torch does not load: {error}", "install torch anew for this machine")
    if not torch.cuda.is_available():
        return Finding("device", "ok", f"CPU, {torch.get_num_threads()} threads: the demo, but no Llama recipe")
    properties = torch.cuda.get_device_properties(0)
    cudnn = torch.backends.cudnn.version() or 0
    found = f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / GIB:.0f} GiB, cuDNN {cudnn}"
    if (properties.major, properties.minor) == (9, 0) and cudnn < GOOD_CUDNN:
        return Finding(
            "device", "warn", found, "attention will take a slower path: install a torch with cuDNN > 9.15.1"
        )
    return Finding("device", "ok", found)


def check_login() -> Finding:
    """Whether a Hub token is there, by huggingface_hub's own rules. The Hub is not asked whether it is valid."""
    from huggingface_hub import get_token

    if get_token():
        return Finding("hub login", "ok", "a token is set")
    return Finding("hub login", "ok", "none (the demo needs none)", "for gated models and publishing: hf auth login")


def check_offline(environment: dict[str, str]) -> Finding:
    """Flags that cut off the Hub: good for the demo and the tests, not for recipes that name Hub ids."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    # huggingface_hub/constants.py: these spellings count as true.
    flags = [name for name in names if environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    if not flags:
        return Finding("hub access", "ok", "no offline flag is set")
    return Finding(
        "hub access", "warn", f"{', '.join(flags)} set: Hub ids in recipes will not load", "unset to use the Hub"
    )
