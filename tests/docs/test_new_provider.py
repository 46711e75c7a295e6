"""docs/new-provider.md: its pieces are the example, which keeps the contract, and its package is found by name."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from docblocks import Story, blocks

from datavern import ConfigurationError, DatabaseManager

PAGE = Path(__file__).parents[2] / "docs" / "new-provider.md"
EXAMPLE = PAGE.parent / "examples" / "shelf"


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """A folder that Python imports from; what is imported and registered is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("datavern.manager.loading._registered", {})
    yield folder
    for name in ("shelf", "boards"):
        sys.modules.pop(name, None)


async def test_the_page_is_true(strangers, monkeypatch):
    monkeypatch.chdir(strangers)
    (strangers / "boards.py").write_text((EXAMPLE / "boards.py").read_text(encoding="utf-8"), encoding="utf-8")
    story = Story(PAGE, strangers)
    for block in blocks(PAGE):
        await story.run(block)
    for name in ("shelf.py", "test_shelf.py"):
        assert (strangers / name).read_text(encoding="utf-8") == (EXAMPLE / name).read_text(encoding="utf-8")


# ---- the entry point ------------------------------------------------------------------------------------------------


def wheel(folder: Path, project: dict, sources: dict[str, str]) -> Path:
    """A wheel as a build makes it of the page's pyproject.toml."""
    name, version = project["name"].replace("-", "_"), project["version"]
    points = project["entry-points"]["datavern.providers"]
    about = f"{name}-{version}.dist-info"
    files = {
        **sources,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: datavern\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": "[datavern.providers]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()),
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text.encode())}\n"
        for path, text in files.items()
    )
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in {**files, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return made


@pytest.fixture
def installed(strangers, tmp_path):
    """Installs the page's package, with pip, into a folder that Python imports from."""
    (pyproject,) = [b.text for b in blocks(PAGE) if b.text.startswith("# pyproject.toml")]
    sources = {name: (EXAMPLE / name).read_text(encoding="utf-8") for name in ("boards.py", "shelf.py")}
    made = wheel(tmp_path, tomllib.loads(pyproject)["project"], sources)
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--target", str(strangers)]

    def install():
        subprocess.run([sys.executable, "-m", "pip", "install", *options, str(made)], check=True)

    return install


async def test_an_installed_package_brings_its_engine(installed, tmp_path):
    config = tmp_path / "datavern.toml"
    config.write_text('[databases.notes]\nprovider = "shelf"\nshelf = "from the entry point"\n')
    with pytest.raises(ConfigurationError, match="no engine is named shelf; there are: .*sqlite"):
        DatabaseManager.from_config(config)
    installed()
    async with DatabaseManager.from_config(config) as db:
        assert type(db["notes"]).__module__ == "shelf"
        await db["notes"].execute("CREATE TABLE notes (id any)")
        assert await db["notes"].execute("INSERT INTO notes VALUES (?)", [1]) == 1
        assert (await db.health())["notes"].status == "healthy"


def distribution(folder: Path, name: str, points: str) -> None:
    """What an installed distribution leaves: entry points, and nothing else."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[datavern.providers]\n{points}\n")


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ("odd = no_such_module:Provider", "the engine odd does not load from no_such_module:Provider: No module named"),
        ("odd = json:NoProvider", "the engine odd does not load from json:NoProvider"),
        ("odd = json:dumps", "the engine odd: expected a provider class with from_settings"),
        ("odd = json:JSONEncoder", "the engine odd: expected a provider class with from_settings"),
    ],
)
def test_an_entry_point_that_is_wrong_says_so(strangers, tmp_path, points, said):
    distribution(strangers, "odd_engine", points)
    (tmp_path / "datavern.toml").write_text('[databases.main]\nprovider = "odd"\n')
    with pytest.raises(ConfigurationError, match=said):
        DatabaseManager.from_config(tmp_path / "datavern.toml")


def test_two_packages_with_one_engine_are_not_chosen_between(strangers, tmp_path):
    distribution(strangers, "one_shelf", "shelf = json:JSONEncoder")
    distribution(strangers, "other_shelf", "shelf = json:JSONDecoder")
    (tmp_path / "datavern.toml").write_text('[databases.main]\nprovider = "shelf"\nshelf = "x"\n')
    with pytest.raises(ConfigurationError, match="the engine shelf is brought by one_shelf and other_shelf"):
        DatabaseManager.from_config(tmp_path / "datavern.toml")
    (strangers / "boards.py").write_text((EXAMPLE / "boards.py").read_text(encoding="utf-8"), encoding="utf-8")
    (strangers / "shelf.py").write_text((EXAMPLE / "shelf.py").read_text(encoding="utf-8"), encoding="utf-8")
    from shelf import ShelfProvider

    DatabaseManager.register("shelf", ShelfProvider)
    assert type(DatabaseManager.from_config(tmp_path / "datavern.toml")["main"]) is ShelfProvider


@pytest.mark.parametrize("found", [None, "shelf:ShelfProvider", dict, print])
def test_what_is_no_provider_is_not_registered(found):
    with pytest.raises(ConfigurationError, match="the engine mine: expected a provider class"):
        DatabaseManager.register("mine", found)


async def test_an_entry_point_does_not_take_the_place_of_our_own(strangers, tmp_path):
    distribution(strangers, "impostor", "sqlite = json:JSONEncoder")
    (tmp_path / "datavern.toml").write_text(f'[databases.main]\nprovider = "sqlite"\npath = "{tmp_path}/a.db"\n')
    async with DatabaseManager.from_config(tmp_path / "datavern.toml") as db:
        assert await db["main"].query_value("SELECT 1") == 1
