"""A silo's folder: everything that the silo keeps, in one place.

invitation.toml, startup/, local/   its keys and how it reaches the coordinator (see `coterie.silos.project`)
silo.toml                           its data, test rows, model and device (see `silo_file`)
policy.toml                         what runs may do here (see `coterie.silos.policy`)
approvals/                          what people at the silo have decided about runs
audit.jsonl                         what arrived and what left
runs/NAME/                          the states and models of the silo's clients in one run
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.core.files import write_atomic
from coterie.core.toml_text import toml_text
from coterie.experiment.silos.silo_file import SILO_FILE, SiloFile, load_silo_file
from coterie.silos.approvals import Approvals
from coterie.silos.policy import DEFAULT_POLICY, Policy
from coterie.silos.project import read_invitation
from coterie.track.file_writing import disk_mistakes

POLICY_FILE, AUDIT_FILE, INVITATION_FILE = "policy.toml", "audit.jsonl", "invitation.toml"

_TEMPLATE = """\
# This silo's own configuration. It never leaves the silo. Fill in [data], then try it with `coterie deploy check`.
name = {name}

[data]
source = "csv"                  # or parquet, npz, images, "package.module:function"
path = "patients.csv"           # beside this file, or from the root: /data/patients.csv
label_column = "diagnosis"      # or label_columns = ["sick", "tired"], where the experiment predicts several
# feature_columns = ["age"]     # all other columns, unless you name some
# test_column = "test"          # marks the test rows; without it, every fifth row or so, by a digest of the row
# client_column = "ward"        # where this silo hosts several clients

# [engine]
# device = "cuda"               # a GPU if there is one, unless you name another device
"""


@dataclass(frozen=True)
class SiloFolder:
    """A silo's folder, read.

    Attributes:
        path: of the folder.
        file, policy: what silo.toml and policy.toml say.
    """

    path: Path
    file: SiloFile
    policy: Policy

    @property
    def approvals(self) -> Approvals:
        """What people at the silo have decided about runs."""
        return approvals_in(self.path)

    @property
    def audit_log(self) -> Path:
        """The file of the audit log."""
        return self.path / AUDIT_FILE

    def run(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.path / "runs" / name


def load_silo_folder(path: Path) -> SiloFolder:
    """Read a silo's folder.

    Raises:
        Mistake: a file is missing, or says something that cannot be used.
    """
    file, policy = load_silo_file(path / SILO_FILE), Policy.load(path / POLICY_FILE)
    if (path / INVITATION_FILE).is_file():
        invited = read_invitation(path / INVITATION_FILE).silo
        if file.name != invited:
            raise Mistake(
                f"{path / SILO_FILE}: the invitation is for {invited}; give that", key="name", value=file.name
            )
    return SiloFolder(path, file, policy)


def approvals_in(path: Path) -> Approvals:
    """Return the approvals in a silo's folder."""
    return Approvals(path / "approvals")


def write_templates(path: Path, name: str) -> list[Path]:
    """Write silo.toml and policy.toml where they are absent; return those that were written.

    Raises:
        Mistake: they cannot be written.
    """
    texts = {SILO_FILE: _TEMPLATE.format(name=toml_text(name)), POLICY_FILE: DEFAULT_POLICY}
    absent = [path / name for name in texts if not (path / name).exists()]
    for file in absent:
        with disk_mistakes(file):
            write_atomic(file, texts[file.name].encode())
    return absent
