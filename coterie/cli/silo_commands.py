"""`coterie deploy ...` at a silo: ask to take part, join, check, serve, approve runs, and read the audit log."""

from __future__ import annotations

import getpass
import shlex
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli import deploy_commands
from coterie.cli.interrupts import handle_interrupts
from coterie.core.errors import Mistake
from coterie.core.printable import printable

app = deploy_commands.app
"""The commands stand beside the coordinator's."""

Silo = Annotated[
    Path | None, typer.Argument(metavar="[DIR]", help="The silo's folder. [default: this one, or the only one in it]")
]


@app.command()
def request(
    invitation: Annotated[Path, typer.Argument(metavar="INVITATION", help="What the coordinator has sent: NAME.toml.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="The silo's folder, which is made. [default: NAME]")
    ] = None,
) -> None:
    """Silo: make its key, and a request for a certificate.

    The key stays here. Run it again to renew the certificate.
    """
    from coterie.experiment.silos.silo_folder import write_templates
    from coterie.silos.certificates import key_fingerprint
    from coterie.silos.project import read_invitation
    from coterie.silos.project import request as make_request

    found = read_invitation(invitation)
    home = folder or Path(found.silo)
    file = make_request(invitation, home)
    written = write_templates(home, found.silo)
    print(f"{home}: the folder of {found.silo}; its key stays in it, so let nobody else read it")
    print(
        f"the coordinator is {found.host}:{found.port}; compare this fingerprint with its people by telephone: "
        f"{found.root}"
    )
    print(f"next, send the coordinator this request, by any way:\n  {file}")
    print(f"its key has the fingerprint {key_fingerprint(file.read_bytes())}")
    for path in written:
        print(f"meanwhile, read and change {path}")
    print(f"when the certificate is here: coterie deploy join {found.silo}.certificate.pem {_quote(home)}")


@app.command()
def join(
    certificate: Annotated[
        Path, typer.Argument(metavar="CERTIFICATE", help="What the coordinator has sent: NAME.certificate.pem.")
    ],
    folder: Silo = None,
) -> None:
    """Silo: join with the certificate that the coordinator has signed."""
    from coterie.experiment.silos.find_project import find_silo
    from coterie.experiment.silos.silo_file import SILO_FILE
    from coterie.experiment.silos.silo_folder import INVITATION_FILE
    from coterie.silos.project import join as join_project
    from coterie.silos.project import read_invitation

    home = find_silo(folder)
    ends = join_project(home, certificate)
    silo = read_invitation(home / INVITATION_FILE)
    print(f"{silo.silo} has joined the project {silo.name}; its certificate ends on {ends:%Y-%m-%d}")
    print(f"next, when {home / SILO_FILE} names the data: coterie deploy check {_quote(home)}")


@app.command()
def check(
    folder: Silo = None,
    experiment: Annotated[
        Path | None, typer.Option(help="The experiment file: also try its model on the data, and the policy on it.")
    ] = None,
) -> None:
    """Silo: check data, disk, device, policy and connection."""
    from coterie.cli.text_table import print_table
    from coterie.experiment.silos.check_folder import check_folder
    from coterie.experiment.silos.find_project import find_silo

    home = find_silo(folder)
    findings = check_folder(home, experiment)
    rows = [["ok" if each.ok else "NO", each.what, printable(each.sentence)] for each in findings]
    print_table(["", "what", ""], rows, 400, overflow="fold")
    wrong = [each.what for each in findings if not each.ok]
    if wrong:
        raise Mistake(f"{', '.join(wrong)}: see above; mend that, and check again")
    print(f"all is well; next: coterie deploy serve {_quote(home)}")


@app.command()
def serve(folder: Silo = None) -> None:
    """Silo: answer the coordinator, until this is stopped."""
    from coterie.experiment.silos.find_project import find_silo
    from coterie.experiment.silos.serve_forever import serve_silo
    from coterie.experiment.silos.silo_service import say_here

    home = find_silo(folder)
    with handle_interrupts(f"coterie deploy serve {_quote(home)}", "round"):
        serve_silo(home, say_here)


@app.command()
def approve(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's name or digest; none lists all.")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="The silo's folder.")] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the approval back, or refuse the run.")] = False,
    by: Annotated[str | None, typer.Option(help="Who decides. [default: your user name]")] = None,
) -> None:
    """Silo: see what runs would send, and approve or revoke one."""
    from coterie.experiment.silos.find_project import find_silo
    from coterie.experiment.silos.silo_folder import approvals_in

    home = find_silo(folder)
    approvals = approvals_in(home)
    if run is None and revoke:
        raise Mistake("--revoke names no run; coterie deploy approve lists all that have asked, each with its digest")
    if run is None:
        known = approvals.all()
        for each in known:
            who = f" by {printable(each.by)}" if each.by else ""
            print(f"{each.description.digest[:12]}  {each.state}{who}, {each.when}")
            print(*(f"  {printable(sentence)}" for sentence in each.description.sentences()), sep="\n")
        pending = [each for each in known if each.state == "pending"]
        if pending:
            print("approve one with: coterie deploy approve DIGEST")
        else:
            print("no run waits for approval" if known else "no run has asked to begin here")
        return
    who = by or getpass.getuser()
    decided = approvals.revoke(run, who) if revoke else approvals.approve(run, who)
    print(f"{decided.description.run} ({decided.description.digest[:12]}): {decided.state} by {printable(who)}")


@app.command()
def audit(
    folder: Silo = None,
    known_head: Annotated[
        str | None, typer.Option(help="A last digest of earlier, kept elsewhere: it must be in the log.")
    ] = None,
    last: Annotated[
        int | None, typer.Option(min=0, help="Print the last lines alone, as many as this; 0 only verifies.")
    ] = None,
) -> None:
    """Silo: verify and print the log of what arrived and left."""
    from coterie.cli.text_table import print_table
    from coterie.experiment.silos.find_project import find_silo
    from coterie.experiment.silos.silo_folder import AUDIT_FILE
    from coterie.silos.audit_log import columns
    from coterie.silos.verify_log import verify

    log = find_silo(folder) / AUDIT_FILE
    if not log.exists() and known_head is None:
        raise Mistake(f"{log}: is not there, since this silo has not served yet; start coterie deploy serve")
    found = verify(log, known_head)
    head, rows = columns(found.entries)
    shown = rows if last is None else rows[max(0, len(rows) - last) :]
    if shown:
        print_table(head, [[printable(cell) for cell in row] for row in shown], 400, overflow="fold")
    print(found.sentence())
    if found.broken is not None:
        raise typer.Exit(1)


def _quote(folder: Path) -> str:
    return shlex.quote(str(folder))
