"""What the pool makes of logins with a person, where real time would be too slow."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fakes.asking_server import Asking, Round, Step, key_in
from fakes.gate import Gate
from fakes.links import Collector, find_host, make_pool, run
from holdfast_daemon.connection.question import GaveUp, Kind, Question
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.hosts.host import Host

CODE = "736451"
ONE = Step(rounds=(Round([("Code: ", False)], [CODE]),))


class Person:
    """Types what was agreed on; at the end gives up, or never answers."""

    def __init__(self, *answers: str, patient: bool = False) -> None:
        self.answers = list(answers)
        self.patient = patient
        self.asked: list[Question] = []
        self.told: list[str] = []
        self.was_asked = asyncio.Event()

    async def ask(self, question: Question) -> Sequence[Secret]:
        self.asked.append(question)
        self.was_asked.set()
        if len(self.answers) < len(question.prompts):
            if self.patient:
                await asyncio.Event().wait()
            raise GaveUp
        return [Secret(self.answers.pop(0)) for _ in question.prompts]

    def tell(self, text: str) -> None:
        self.told.append(text)


async def host_of(asking: Asking, directory: Path, alias: str = "web1") -> Host:
    return await find_host(asking.config(directory, alias), alias)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_person_s_connection_outlives_the_ordinary_idle_limit(
    tmp_path: Path,
) -> None:
    """NF-07: nobody is asked again after a pause; its own limit closes it."""
    async with Asking(ONE) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool(
            connection_idle_seconds=0.05, login_keep_seconds=4
        ) as pool:
            lease, _ = await pool.login(host, Person(CODE))
            lease.release()
            await asyncio.sleep(0.5)  # ten times the ordinary limit
            async with await pool.lease(host) as again:
                assert again.reused
            await eventually(lambda: not pool.list())
        async with make_pool(
            connection_idle_seconds=0.05, login_keep_seconds=0
        ) as pool:
            lease, _ = await pool.login(host, Person(CODE))
            lease.release()
            await asyncio.sleep(0.5)
            assert pool.find(host) is not None


async def test_a_full_connection_of_a_person_s_is_waited_for(tmp_path: Path) -> None:
    """NF-07: one more would need the person again."""
    async with Asking(ONE) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool(
            channels_per_connection=1, channel_open_seconds=2, channels_waiting=0
        ) as pool:
            lease, _ = await pool.login(host, Person(CODE))
            waiting = asyncio.create_task(pool.lease(host))
            await asyncio.sleep(0)
            assert not waiting.done()
            lease.release()
            second = await waiting
            assert second.reused
            with pytest.raises(DaemonError) as caught:
                await pool.lease(host)
            assert caught.value.reason is Reason.LIMIT_REACHED
            assert "holdfast login --again web1" in caught.value.hint
            person = Person(CODE)
            third, _ = await pool.login(host, person, again=True)
            assert len(person.asked) == 1
            third.release()
            async with await pool.lease(host) as fourth:
                assert (await run(fourth, "echo on"))[1] == b"on\n"
            second.release()
        assert asking.seen.logins == 2


async def test_a_server_of_few_channels_rings_nobody_s_telephone(
    tmp_path: Path,
) -> None:
    """NF-07, A5 row 12: MaxSessions 1, found out by a call that meets it."""
    gate = Gate(tmp_path / "gate")
    async with Asking(ONE, most_channels=1) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool() as pool:
            lease, _ = await pool.login(host, Person(CODE))
            held = await lease.open(f"echo here; {gate.wait}", sink := Collector())
            await sink.wait_for(b"here\n")
            lease.release()

            async def say(lease: Lease) -> bytes:
                async with lease:
                    return (await run(lease, "echo on"))[1]

            others = [await pool.lease(host) for _ in range(3)]
            waiting = [asyncio.create_task(say(other)) for other in others]
            await asking.until("refused", 1)
            await eventually(
                lambda: pool.list()[0].leases == 0 or any(one.done() for one in waiting)
            )
            gate.open()
            assert await asyncio.gather(*waiting) == [b"on\n"] * 3
            await held.ended()
            (row,) = pool.list()
            assert (row.leases, row.channels) == (0, 0)
        assert asking.seen.connections == 1
        assert asking.seen.asked == 1


async def test_a_channel_that_is_never_free_is_waited_for_within_a_limit(
    tmp_path: Path,
) -> None:
    """NF-07: who waited keeps its seat, and is told what is full."""
    gate = Gate(tmp_path / "gate")
    async with Asking(ONE, most_channels=1) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool(channel_open_seconds=2) as pool:
            first, _ = await pool.login(host, Person(CODE))
            await first.open(f"echo here; {gate.wait}", sink := Collector())
            await sink.wait_for(b"here\n")
            async with await pool.lease(host) as second:
                with pytest.raises(DaemonError) as caught:
                    await second.open("echo on", Collector())
                assert caught.value.reason is Reason.LIMIT_REACHED
                assert caught.value.ran == "no"
                assert pool.list()[0].leases == 2
            first.release()
            assert pool.list()[0].leases == 0
        assert asking.seen.connections == 1


async def test_a_person_s_login_by_one_key_is_not_for_who_has_another(
    tmp_path: Path,
) -> None:
    """AU-05: not where IdentitiesOnly says which key is meant."""
    paths = [tmp_path / name for name in ("admin", "readonly")]
    keys = [key_in(path) for path in paths]
    async with Asking(Step(keys=keys), ONE) as asking:
        host = replace(await host_of(asking, tmp_path), identities_only=True)
        admin, other = (replace(host, identity_files=(str(path),)) for path in paths)
        async with make_pool() as pool:
            lease, _ = await pool.login(admin, Person(CODE))
            with pytest.raises(DaemonError) as caught:
                await pool.lease(other)
            assert caught.value.reason is Reason.LOGIN_NEEDED
            async with await pool.lease(replace(admin, name="again")) as shared:
                assert shared.link is lease.link
            lease.release()
        assert asking.seen.logins == 1


async def test_a_person_who_never_answers_is_not_waited_for_forever(
    tmp_path: Path,
) -> None:
    """NF-07: a long limit, and those who wait are told."""
    async with Asking(ONE) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool(login_person_seconds=0.5) as pool:
            person = Person(patient=True)
            login = asyncio.create_task(pool.login(host, person))
            await asyncio.wait_for(person.was_asked.wait(), 40)
            with pytest.raises(DaemonError) as waiter:
                await pool.lease(host)
            with pytest.raises(DaemonError) as caught:
                await login
    assert caught.value.reason is Reason.CONNECT_TIMEOUT
    assert "login_person_seconds" in caught.value.hint
    assert waiter.value.ran == "no"


async def test_a_server_that_hangs_up_meanwhile_is_told_with_its_limit(
    tmp_path: Path,
) -> None:
    """NF-07: sshd's LoginGraceTime."""
    async with Asking(ONE, grace=0.5) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool() as pool:
            with pytest.raises(DaemonError) as caught:
                await pool.login(host, Person(patient=True))
    assert "LoginGraceTime" in caught.value.hint
    assert "hung up" in caught.value.message


async def test_a_password_is_asked_where_only_a_password_is_taken(
    tmp_path: Path,
) -> None:
    """AU-01, AU-13: by its own method too, and thrice at most."""
    async with Asking(Step(password="right one")) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool() as pool:
            with pytest.raises(DaemonError) as caught:
                await pool.lease(host)
            assert caught.value.message == "web1 asks for: password"
            wrong = Person(*["wrong one"] * 9)
            with pytest.raises(DaemonError) as caught:
                await pool.login(host, wrong)
            assert caught.value.reason is Reason.AUTH_FAILED
            assert [question.tries for question in wrong.asked] == [0, 1, 2]
            assert {question.kind for question in wrong.asked} == {Kind.PASSWORD}
            lease, _ = await pool.login(host, Person("wrong one", "right one"))
            assert lease.link.auth_method == "password by a person"
            lease.release()
    assert asking.seen.attempts == ["wrong one"] * 4 + ["right one"]


async def test_the_same_password_twice_is_no_matter_for_a_person(
    tmp_path: Path,
) -> None:
    """AU-05: what is at hand is given again where the server took it and wants more."""
    steps = (Step(password="right one"), Step(password="right one"), ONE)
    async with Asking(*steps) as asking:
        host = await host_of(asking, tmp_path)
        named = replace(host, password=Secret("right one"))
        async with make_pool() as pool:
            with pytest.raises(DaemonError) as caught:
                await pool.lease(named)
            assert caught.value.message == "web1 asks for: Code"
            lease, _ = await pool.login(named, Person(CODE))
            assert lease.link.auth_method == (
                "password, then password, then keyboard-interactive by a person"
            )
            lease.release()
        asking.steps = steps[:2]
        async with make_pool() as pool, await pool.lease(named) as lease:
            assert lease.link.auth_method == "password, then password"


async def test_an_expired_password_is_changed_by_a_person(tmp_path: Path) -> None:
    """AU-13: the old one, and the new one twice."""
    async with Asking(
        Step(password="old one"), expired="Expired.\x1b[2J Choose another."
    ) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool() as pool:
            named = replace(host, password=Secret("old one"))
            with pytest.raises(DaemonError) as caught:
                await pool.lease(named)
            assert caught.value.message == "web1 asks for: a new password"
            person = Person(
                "old one", "old one", "new", "other", *["old one"], "n", "n"
            )
            lease, _ = await pool.login(host, person)
            assert person.asked[1].instructions == "Expired. Choose another."
            assert any("differ" in text for text in person.told)
            lease.release()
    assert asking.seen.attempts[-2:] == ["old one", "n"]


async def test_the_questions_of_a_jump_host_reach_the_person_too(
    tmp_path: Path,
) -> None:
    """NF-07: each is named by its host; an agent is told which one to log in to."""
    async with Asking(ONE) as jump, Asking(Step(password="right one")) as web:
        hop = await host_of(jump, tmp_path, "bastion")
        host = replace(await host_of(web, tmp_path), proxy_jump=hop)
        async with make_pool() as pool:
            with pytest.raises(DaemonError) as caught:
                await pool.lease(host)
            assert "bastion asks for: Code" in caught.value.message
            assert "`holdfast login bastion`" in caught.value.hint
            lease, _ = await pool.login(bastion := hop, Person(CODE))
            lease.release()
            with pytest.raises(DaemonError) as caught:
                await pool.lease(host)
            # The server has no forwarding: what matters is that nobody was asked.
            assert jump.seen.logins == 1
            await pool.disconnect(bastion)
            person = Person(CODE)
            with pytest.raises(DaemonError):
                await pool.login(host, person)
            assert [question.host for question in person.asked] == ["bastion"]


async def test_what_a_server_says_is_cleaned_and_bounded(tmp_path: Path) -> None:
    """AU-13: neither escapes nor floods reach a terminal or an error."""
    rounds = (
        Round(
            [("\x1b]2;owned\x07Co\u202ede:\r\n\x9b31m" + "x" * 5000, False)],
            [CODE],
            name="N" * 5000,
            instructions="line\n" * 5000,
        ),
    )
    async with Asking(Step(rounds=rounds), banner="\x1b[31mHello\x07\n") as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool() as pool:
            with pytest.raises(DaemonError) as caught:
                await pool.lease(host)
            assert len(caught.value.message) < 400
            assert caught.value.message.isprintable()
            person = Person(CODE)
            lease, _ = await pool.login(host, person)
            lease.release()
    (question,) = person.asked
    assert question.prompts[0].text.isprintable()
    assert len(question.prompts[0].text) <= 300
    assert len(question.name) <= 300
    assert len(question.instructions) <= 2000
    assert "owned" not in question.prompts[0].text
    assert person.told[0] == "Hello"


async def test_too_many_prompts_at_once_are_refused(tmp_path: Path) -> None:
    many = Round([("Code: ", False)] * 200, [CODE] * 200)
    async with Asking(Step(rounds=(many,))) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool() as pool:
            person = Person(*[CODE] * 1000)
            with pytest.raises(DaemonError) as caught:
                await pool.login(host, person)
    assert "200 answers at once" in caught.value.message
    assert person.asked == []
    assert asking.seen.attempts == []


async def test_an_empty_round_needs_nobody(tmp_path: Path) -> None:
    """AU-13: PAM's messages come as questions without a prompt."""
    rounds = (
        Round([], [], instructions="Welcome"),
        Round([("Password: ", False)], ["right one"]),
        Round([], [], instructions="Last login: never"),
    )
    async with Asking(Step(rounds=rounds)) as asking:
        host = await host_of(asking, tmp_path)
        named = replace(host, password=Secret("right one"))
        async with make_pool() as pool, await pool.lease(named) as lease:
            assert lease.link.auth_method == "keyboard-interactive"
            channel = await lease.open("echo on", sink := Collector())
            await channel.ended()
            assert sink.out == b"on\n"


async def test_what_is_seen_is_never_the_password_at_hand(tmp_path: Path) -> None:
    """AU-13: a prompt that echoes asks for something else."""
    rounds = (Round([("User name: ", True), ("Password: ", False)], ["me", "pw"]),)
    async with Asking(Step(rounds=rounds)) as asking:
        host = await host_of(asking, tmp_path)
        named = replace(host, password=Secret("pw"))
        async with make_pool() as pool:
            with pytest.raises(DaemonError) as caught:
                await pool.lease(named)
            assert caught.value.message == "web1 asks for: User name"
            person = Person("me")
            lease, _ = await pool.login(named, person)
            assert [prompt.echo for prompt in person.asked[0].prompts] == [True]
            lease.release()
    assert asking.seen.attempts == ["me", "pw"]


async def test_what_a_server_repeats_of_an_answer_reaches_nobody_else(
    tmp_path: Path,
) -> None:
    """AU-13, SC-12: those who wait are told what was asked, less what was typed."""
    rounds = (
        Round([("Code: ", False)], [CODE]),
        Round([(f"You typed {CODE}. Now the token: ", False)], ["x"]),
    )
    async with Asking(Step(rounds=rounds)) as asking:
        host = await host_of(asking, tmp_path)
        async with make_pool() as pool:
            with pytest.raises(DaemonError) as caught:
                await pool.login(host, Person(CODE))
    assert "Now the token" in caught.value.message
    assert CODE not in str(caught.value.__dict__)
