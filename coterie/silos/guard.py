"""A guard around a silo's answers: the audit log, the length of messages, and approvals that were taken back."""

from __future__ import annotations

from collections.abc import Callable

from coterie.silos.audit_log import AuditLog, log_traffic
from coterie.silos.policy import Policy


def guard_answers(
    answer: Callable[[bytes], bytes],
    policy: Policy,
    is_revoked: Callable[[bytes], bool],
    log: AuditLog,
    refuse: Callable[[bytes, str], bytes],
) -> Callable[[bytes], bytes]:
    """Return an answer that keeps to the policy and logs all that arrives and leaves.

    Whether a run may begin is asked once, by `Policy.judge` and `Approvals.begin`. This looks at each message of it: a
    request that is too long is not read, an answer that is too long does not leave, and a run that somebody has revoked
    meanwhile gets no further answer.

    Args:
        answer: the silo's; see `coterie.silos.carrier`.
        policy: the silo's policy.
        is_revoked: whether a person has revoked the run that a request belongs to.
        log: the silo's audit log.
        refuse: (request, why) -> the answer that says so, such as `coterie.silos.letters.answer_failed`.
    """

    def answer_within_policy(request: bytes) -> bytes:
        why = policy.message_problem(len(request))
        if why is None and is_revoked(request):
            why = "the run was revoked at this silo"
        if why is not None:
            log.note("refused", why=why)
            return refuse(request, why)
        reply = answer(request)
        why = policy.message_problem(len(reply))
        if why is not None:
            log.note("held back", why=why)
            return refuse(request, why)
        return reply

    return log_traffic(answer_within_policy, log)
