"""A silo: it answers a coordinator's messages with the work of its own clients, whose data never leave it.

`Silo(plan, folder)` is a function from bytes to bytes, for a carrier to serve. Its plan is an ordinary one, whose
clients are those that the silo hosts; it does their work as a simulation would, with the same draws and the same codec.
Whatever a client must remember stays in the silo's folder; see `coterie.silos.states`.

A request that was answered already gets the same bytes again, from the disk.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from coterie.core import tree
from coterie.core.digests import digest
from coterie.core.engine import Job, Reply
from coterie.core.errors import Mistake, reason
from coterie.core.files import write_atomic
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.loop.check_update import broken_leaf
from coterie.loop.jobs import Assignment, run_jobs
from coterie.loop.plan import Plan
from coterie.loop.private_client import protect
from coterie.loop.replies import encode
from coterie.loop.secure_round import hides_updates
from coterie.loop.store import Store
from coterie.privacy.masking_client import Unfit
from coterie.silos import letters
from coterie.silos.letters import Result, Run, Start, answer_failed, answer_fields, answer_work, read_starts
from coterie.silos.message import MAX_BYTES, Message, Unusable, form_problem, read_message, write_message
from coterie.silos.silo_ledger import SiloLedger
from coterie.silos.silo_measures import measure_at_silo
from coterie.silos.silo_noise import with_noise_of
from coterie.silos.states import States
from coterie.silos.sum_letters import STEPS
from coterie.silos.sum_silo import SumAtSilo

log = logging.getLogger(__name__)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


class Silo:
    """A silo's answers in one run.

    Args:
        plan: its clients are those that this silo hosts; their training and test data are here. It may come from
            `coterie.plan`, with the same algorithm, rounds, rng seed, seed set and codec as the coordinator's.
        folder: of this run at this silo: its clients' states, and in the end their models. Start a silo again with the
            same folder, and it continues.
        run: the run's name, as at the coordinator.
        experiment: the text that both ends must have alike, such as the experiment file.
        max_bytes: the longest message that is read.
        say: gets a sentence about what the silo does.

    Raises:
        Mistake: the states in the folder are damaged.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        run: str = "run",
        experiment: str = "",
        max_bytes: int = MAX_BYTES,
        say: Callable[[str], None] = log.info,
    ) -> None:
        self.plan, self.folder, self.max_bytes, self.say = plan, folder, max_bytes, say
        self.run = Run(run, letters.experiment_digest(plan, experiment))
        self.states = States(folder)
        self.ledger = SiloLedger(plan, folder)
        self.sum = SumAtSilo(self.run, plan.ids)
        self._one_at_a_time = threading.Lock()

    def __call__(self, request: bytes) -> bytes:
        """Return the answer to a message. It never raises: what cannot be done is answered with the reason."""
        with self._one_at_a_time:
            try:
                return self._answer(request)
            except Exception as error:  # a user's model or data may raise anything; the silo goes on
                why = explain_failure(error, "the work failed at the silo")
            self.say(f"a request could not be answered: {why}")
            return answer_failed(self.run, request, why)

    def _answer(self, request: bytes) -> bytes:
        """Return the answer to a message.

        Raises:
            Unusable: the message cannot be used.
        """
        message = read_message(request, self.max_bytes)
        self.run.judge(message)
        kind = message.text("kind")
        if kind == "ping":
            return write_message(answer_fields(self.run, "ping", request))
        round = message.whole("round", 1, self.plan.rounds)
        is_hidden = hides_updates(self.plan)
        if kind in STEPS and not is_hidden:
            raise Unusable("is of a secure sum, and this run has none")
        if kind in STEPS and kind != "sum-work":
            return self.sum.answer(kind, message, request)
        if kind == "work" and is_hidden:
            raise Unusable("asks for updates in the clear, and this run sums them in secret")
        starts = read_starts(message, self.plan.ids, round)
        plan = self.plan.in_round(round)
        if kind in ("work", "sum-work"):
            return self._find_answer(request) or self._work(plan, round, starts, message, request)
        if kind not in ("measure", "save"):
            raise Unusable(f"asks for {kind[:50]}, which this version does not know")
        state = self._server_tree(plan, message)
        store = self._store(plan, starts)
        fields = answer_fields(self.run, kind, request)
        if kind == "measure":
            return write_message({**fields, **measure_at_silo(plan, state, store, [s.client for s in starts])})
        self._save_models(plan, state, store, [s.client for s in starts])
        return write_message(fields)

    def _work(self, plan: Plan, round: int, starts: Sequence[Start], message: Message, request: bytes) -> bytes:
        """Do the work of clients in a round, keep their states and the answer, and return it."""
        go_back = message.whole("go_back", 1, 2**31)
        broadcast = message.tree(0)
        wrong = form_problem(broadcast, _honest_broadcast(plan))
        if wrong is not None:
            raise Unusable(f"holds a broadcast that cannot be used: {wrong}")
        broadcast = plan.to_device(broadcast)
        self.say(f"round {round}: working for {', '.join(start.client for start in starts)}")
        secret = self.ledger.enter([start.client for start in starts], round)
        part = {start.client: self._assignment(plan, round, start, secret) for start in starts}
        results, states = dict[str, Result](), dict[str, Tree]()
        hidden = hides_updates(plan)
        plan = with_noise_of(plan, message, starts)
        replies = run_jobs(plan, broadcast, [part])
        result_of = self.sum.masking(plan, message, broadcast) if hidden else _result
        for work, reply in encode(plan, replies if hidden else protect(plan, replies)):
            results[reply.client] = result = result_of(work, reply)
            if result.stateful:
                states[reply.client] = reply.state
        in_order = [results[s.client] if s.client in results else Result(s.client, "gave no reply") for s in starts]
        if states:
            self.states.put(round, states, {start.client: start.round for start in starts}, go_back)
        answer = answer_work(self.run, request, in_order)
        write_atomic(self.folder / "last-answer", digest(request).encode() + digest(answer).encode() + answer)
        return answer

    def _find_answer(self, request: bytes) -> bytes | None:
        """Return the answer of the last work, if it was to this very request."""
        path = self.folder / "last-answer"
        data = path.read_bytes() if path.exists() else b""
        known, sha256, answer = data[:64], data[64:128], data[128:]
        return answer if known == digest(request).encode() and sha256 == digest(answer).encode() else None

    def _assignment(self, plan: Plan, round: int, start: Start, secret: str | None) -> Assignment:
        """Return a client's work, from the state that the coordinator says."""
        state = plan.client_state_from(start.client, self.states.get(start.client, start.round))
        data, architecture = plan.data(start.client), plan.architecture(start.client)
        job = Job(start.client, architecture, state["algorithm"], data, plan.seed_set, round, plan.rng_seed, secret)
        return Assignment(job, state["up"])

    def _server_tree(self, plan: Plan, message: Message) -> Tree:
        """Return the model, or the server's state, that a request holds."""
        state = message.tree(0)
        own = plan.algorithm.traits.own_models
        honest = _first_state(plan) if own else plan.initial[plan.architecture(plan.ids[0])]
        wrong = form_problem(state, honest)
        if wrong is not None:
            raise Unusable(f"holds a model that cannot be used: {wrong}")
        return plan.to_device(state)

    def _store(self, plan: Plan, starts: Sequence[Start]) -> Store:
        """Return the clients' states as a store, where the algorithm evaluates them."""
        store = Store()
        if plan.algorithm.traits.own_models:
            for client, round in starts:
                state = self.states.get(client, round)
                store = store if state is None else store.after(round, {client: state})
        return store

    def _save_models(self, plan: Plan, state: Tree, store: Store, clients: Sequence[str]) -> None:
        """Write each client's model into the silo's folder."""
        for client in clients:
            own = plan.algorithm.traits.own_models
            weights = plan.evaluated_weights(state, store, client) if own else state
            named = plan.tasks[plan.architecture(client)].state_dict(weights)
            write_atomic(model_path(self.folder, client), pack(dict(named)))
            self.say(f"the model of client {client} is in {model_path(self.folder, client)}")


def explain_failure(error: Exception, what: str) -> str:
    """Return in a sentence why a request could not be answered.

    Args:
        error: what was raised.
        what: failed, for an error that nobody expects; that is logged with its traceback.
    """
    if isinstance(error, Unusable):
        return f"the request {error}"
    if isinstance(error, Mistake | Unfit):
        return str(error)
    if isinstance(error, OSError):
        return f"a file cannot be read or written at the silo ({error.strerror or reason(error)})"
    log.error("a request could not be answered", exc_info=error)
    return f"{what} ({type(error).__name__}: {reason(error)})"


def model_path(folder: Path, client: str) -> Path:
    """Return where a silo writes the model of a client: safetensors, by the names of the model's `state_dict`."""
    name = client if _PLAIN_NAME.fullmatch(client) else hashlib.blake2b(client.encode(), digest_size=16).hexdigest()
    return folder / "models" / f"{name}.safetensors"


def _result(work: Assignment, reply: Reply) -> Result:
    """Return a client's work as it travels; a reason in its place if the client could not keep its new state."""
    broken = broken_leaf(reply.state, {"algorithm": work.job.state, "up": work.codec_state})
    if broken is not None:
        return Result(reply.client, f"the client's own {broken} holds numbers that are not finite")
    weighting, logs = dict(reply.weighting), {name: float(value) for name, value in reply.logs.items()}
    return Result(reply.client, None, pack(reply.update), weighting, logs, any(reply.state.values()))


def _first_state(plan: Plan) -> Tree:
    """Return the server's state before the first round, as far as a silo can make it: its form is the right one."""
    weights = next(iter(plan.initial.values())) if len(plan.initial) == 1 else None
    return plan.algorithm.server.initial_state(weights, plan.federation())


def _honest_broadcast(plan: Plan) -> Tree:
    """Return a broadcast of the right form, on the host."""
    return tree.map(lambda x: x.cpu(), plan.algorithm.server.broadcast(_first_state(plan)))
