"""A foreign package named `traces` is refused with the remedy."""

import subprocess
import sys
from pathlib import Path


def test_foreign_traces_is_named_with_remedy(tmp_path: Path) -> None:
    foreign = tmp_path / "traces"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("class TimeSeries: ...\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import simkit"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert str(foreign) in last
    assert "pip uninstall -y traces" in last


def test_ours_is_accepted() -> None:
    from simkit._owner import check_owner

    check_owner()
