"""A session: the loop of a model that calls tools until it submits, or until a limit ends it.

Each turn is one call, recorded with all that was said before it. A turn that comes to nothing, because all
of it was refused or is the turn before once more, may be followed by as many such as a reply may be repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from agents.llm import Call, Client, Message, Outcome, Prompt
from agents.llm.types import ToolCall, ToolResult
from agents.workspace.meter import Meter
from agents.workspace.tools import REFUSED, SUBMIT, Desk, Refused
from storage.records import Answer, CallRecord

AGAIN = (
    "this is the turn before once more, and nothing has changed since: do something else, or submit"
)
# The outcomes after which a model may go on; after any other there is none to talk to.
MENDABLE = (Outcome.ok, Outcome.malformed, Outcome.truncated)


@dataclass
class Session:
    """``patience``: turns in a row that may come to nothing. ``answer`` makes the answer; ``record`` gives a
    call, and which of the session's it was, as the ledger keeps it; ``ended`` says of a session that is
    replayed that it went no further.
    """

    client: Client
    prompt: Prompt
    desk: Desk
    meter: Meter
    answer: Callable[..., Answer]
    record: Callable[[Call, int], CallRecord]
    patience: int
    ended: Callable[[], bool]
    calls: list[CallRecord] = field(default_factory=list)
    idle: int = 0  # turns in a row that came to nothing
    before: Sequence[tuple[str, object]] = ()  # the calls of the last turn
    stands: str = ""  # what passed the gate, as the model has been told

    async def hold(self) -> Answer:
        """The submission, or the failure that the session ended in: `budget`, `invalid-reply`, or the outcome
        of the last call."""
        while not (reason := self._short()):
            self.stands = self.desk.passed
            call = await self._ask()
            if call.outcome not in MENDABLE:
                return self._answer(failure=call.outcome.value, detail=call.error)
            error = await self._go_on(call)
            if self.desk.submitted is not None:
                return self._answer(**self.desk.submitted)
            if self.idle > self.patience:
                failure = "invalid-reply" if call.outcome is Outcome.ok else call.outcome.value
                return self._answer(failure=failure, detail=error)
        return self._cut(reason)

    def _short(self) -> str:
        return "it ended here" if self.ended() else self.meter.short(self.prompt)

    async def _ask(self) -> Call:
        call = await self.client.complete(self.prompt)
        record = self.record(call, len(self.calls))
        self.calls.append(record)
        self.meter.count(self.prompt, call, record.cost_usd)
        return call

    async def _go_on(self, call: Call) -> str:
        """Carry out what a turn asks for and put it into the prompt; the last thing that was wrong."""
        results, errors = list[ToolResult](), [call.error]
        asked = [(one.name, one.arguments) for one in call.tool_calls]
        for one in call.tool_calls:
            if self.meter.seconds_left <= 0 and one.name != SUBMIT:
                continue  # nor is there another call, so that nobody is told
            text, error = await self._result(one, again=asked == self.before)
            results.append(ToolResult(one.id, text))
            errors.append(error)
            if self.desk.submitted is not None:
                break
        self.before = asked
        self.idle = self.idle + 1 if all(errors[-len(results) :]) else 0
        self._say(call, tuple(results))
        return errors[-1]

    async def _result(self, call: ToolCall, again: bool) -> tuple[str, str]:
        """What a tool answers, and what was wrong with the call."""
        try:
            if again:
                raise Refused(AGAIN)
            return await self.desk.do(call), ""
        except Refused as refused:
            return f"{REFUSED}{refused}", str(refused)

    def _say(self, call: Call, results: tuple[ToolResult, ...]) -> None:
        """Put a turn and what came of it into the prompt; of one that called nothing, that it did not."""
        said, told = Message("assistant", reply=call.reply), self.meter.told()
        if not results:
            said = Message("assistant", "(no call)")
            told = f"{REFUSED}{call.error}. Call a tool.\n{told}"
        answer = Message("user", told, results=results)
        self.prompt = replace(self.prompt, messages=(*self.prompt.messages, said, answer))

    def _cut(self, reason: str) -> Answer:
        """What a limit leaves: the file that last passed the gate, if the model had been told so."""
        if not self.stands:
            return self._answer(failure="budget", detail=f"nothing was submitted; {reason}")
        why = "The session ended before it submitted: the file that last passed its gate stands."
        return self._answer(source=self.stands, reasoning=why)

    def _answer(self, **fields: str) -> Answer:
        return self.answer(calls=tuple(self.calls), **fields)
