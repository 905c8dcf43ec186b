"""Doctor: what it must notice, and what it must never print."""

import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from selflong import doctor


def levels(requirements: list[str], versions: dict[str, str], extra: str = "") -> dict[str, str]:
    """Level by the first word of what was found."""
    pairs = [(extra, Requirement(text)) for text in requirements]
    return {f.found.split()[0]: f.level for f in doctor.check_versions(pairs, versions.get)}


def test_notices_xxhash_4_by_pyprojects_own_bounds() -> None:
    _, bounds = doctor.declared_bounds()
    findings = list(doctor.check_versions(bounds, lambda name: "4.1.0" if name == "xxhash" else None))
    wrong = [f for f in findings if "xxhash 4.1.0" in f.found]
    assert {f.level for f in wrong} == {"fail"} and "only after everything was generated" in wrong[0].found
    assert "xxhash<4" in wrong[0].remedy
    fine = list(doctor.check_versions(bounds, lambda name: "3.8.2" if name == "xxhash" else None))
    assert not [f for f in fine if "xxhash" in f.found and f.level == "fail"]


def test_bounds_of_all_groups_but_dev() -> None:
    python, bounds = doctor.declared_bounds()
    names = {(extra, requirement.name) for extra, requirement in bounds}
    assert (
        python == ">=3.11"
        and ("", "datasets") in names
        and ("train", "trl") in names
        and ("eval", "lighteval") in names
    )
    assert not [name for extra, name in names if extra == "dev" or name == "pytest"]


def test_levels_of_versions() -> None:
    assert levels(["trl>=1.16,<2"], {"trl": "1.16.0"}) == {"trl": "ok"}
    assert levels(["trl>=1.16,<2"], {"trl": "0.9.6"}) == {"trl": "fail"}
    assert levels(["torch>=2.8"], {"torch": "2.13.0+cpu"}) == {"torch": "ok"}
    assert levels(["numpy>=2"], {}) == {"not": "fail"}
    assert levels(["trl>=1.16"], {}, extra="train") == {"not": "warn"}


def test_bounds_of_an_installed_package() -> None:
    assert doctor._extra_of('trl<2,>=1.16; extra == "train"') == "train"
    assert doctor._extra_of("numpy>=2") == ""


def test_machine_levels() -> None:
    assert doctor.check_python(">=3.11", "3.10.12").level == "fail"
    assert doctor.check_python(">=3.11", "3.13.0rc1").level == "ok"
    assert doctor.check_cores(1).level == "warn" and doctor.check_cores(2).level == "ok"
    assert doctor.check_ram(3 * doctor.GIB).level == "warn" and doctor.check_ram(16 * doctor.GIB).level == "ok"
    assert doctor.check_disk(doctor.GIB).level == "warn" and doctor.check_disk(50 * doctor.GIB).level == "ok"
    assert doctor.check_offline({"HF_HUB_OFFLINE": "1"}).level == "warn"
    assert doctor.check_offline({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": ""}).level == "ok"


def test_never_prints_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    text = doctor.render(doctor.diagnose())
    assert "a token is set" in text and "secretsecret" not in text


def test_everything_wrong_has_a_remedy_and_is_counted() -> None:
    findings = doctor.diagnose()
    assert all(f.remedy for f in findings if f.level != "ok")
    text = doctor.render([*findings, doctor.Finding("x", "fail", "broken", "mend it")])
    assert "-> mend it" in text and text.rstrip().splitlines()[-1].endswith(" fail") and " 0 fail" not in text


def test_importing_doctor_and_plan_loads_no_torch() -> None:
    code = (
        "import sys, selflong.doctor, selflong.plan; print(sorted({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
