"""The screen, driven by textual's own pilot at two sizes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from minimp.step import STAGES
from minimp.stepper import COMMANDS
from tests.stepper.test_session import small
from tests.trace.cases import grown

pytest.importorskip("textual")

from textual.events import Key
from textual.widgets import Input, OptionList, Static

from minimp.stepper.screen import ASKING, KEYS, TICK, Answer, Stepper
from minimp.stepper.sources import CAUGHT

SIZES = [(80, 24), pytest.param((200, 60), marks=pytest.mark.slow)]


class Driver:
    """A person at the keys."""

    def __init__(self, app: Stepper, pilot: Any) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other, and wait for what they do."""
        for key in keys:
            await self.pilot.press({"?": "question_mark", ".": "full_stop"}.get(key, key))
            await self.pilot.pause()
            await self.app.workers.wait_for_complete()
            await self.pilot.pause()
            await self.pilot.pause()

    async def say(self, line: str) -> None:
        """Give a command in the line, which a key has opened or opens now."""
        typed = self.app.query_one("#line", Input)
        if not typed.display:
            await self.press("colon")
        typed.value = line
        await self.press("enter")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, but not for ever."""
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, self.text("said")
            await asyncio.sleep(TICK / 10)

    def text(self, name: str) -> str:
        """What a part of the screen says."""
        return str(self.app.query_one(f"#{name}", Static).render())

    def answer(self) -> str:
        """What stands over the screen."""
        assert isinstance(self.app.screen, Answer)
        return self.app.screen.text

    def seen(self) -> str:
        """All the letters on the screen, line by line."""
        picture = self.app.export_screenshot()
        return re.sub(r"<[^>]+>", "", picture).replace("&#160;", " ")


def drive(
    size: tuple[int, int], play: Callable[[Driver], Awaitable[None]], *, light: bool = False,
    after: Callable[[Stepper], object] = bool, note: str = "", **options: Any,
) -> Stepper:  # fmt: skip
    """Run the app in a terminal of some size, and hand its keys to `play`; then the app to `after`."""

    async def go() -> Stepper:
        with small(**options) as session:
            session.note = note
            app = Stepper(session, light=light)
            try:
                async with app.run_test(size=size) as pilot:
                    await pilot.pause()
                    await play(Driver(app, pilot))
            finally:
                app.end()
            after(app)
            return app

    return asyncio.run(go())


@pytest.mark.parametrize("size", SIZES)
def test_stages_and_ops_on_the_left_and_the_moment_on_the_right(size: tuple[int, int]) -> None:
    """Oracle: the prompt's own words for the same session, and what a reader must find on the screen."""

    async def play(user: Driver) -> None:
        assert "before the first stage" in user.text("place")
        await user.press("n", "n")
        assert user.app.session.stage.name == "forward"
        assert "stage 2/10 forward" in user.text("place")
        look = user.text("look")
        assert look.startswith("forward   y = f(x16, w16)")
        assert "by binade" in look
        assert "elements" in look or "zeros" in look
        rows = user.app.query_one("#left", OptionList)
        assert rows.option_count == len(STAGES) + 6 + 6
        await user.press("o")
        assert "op 1/" in user.text("place")
        await user.press("b", "b")
        assert user.app.session.stage.name == "cast_weights"
        for part in ("cast_weights", "update_scale", "w16 = round16(w32)", "next", "help"):
            assert part in user.seen(), part

    drive(size, play)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
def test_the_check_is_shown_beside_its_stage(size: tuple[int, int]) -> None:
    """Oracle: the words of the stage's contract; they go when the session goes on."""

    async def play(user: Driver) -> None:
        await user.press("n", "n", "c")
        assert "ok: every op obeys the policy" in " ".join(user.text("look").split())
        await user.press("n")
        assert "ok:" not in user.text("look")

    drive(size, play)


@pytest.mark.parametrize("size", SIZES)
def test_a_what_if_the_search_and_the_reason(size: tuple[int, int]) -> None:
    """Oracle: the same session at the prompt: the overflow, the skip, the cause; and nothing after undo."""

    async def play(user: Driver) -> None:
        await user.say("set scale 2^24")
        assert re.search(r"\* +update +made +skipped", user.answer())
        await user.press("escape")
        await user.press("r", *"cast", "enter")  # typed after "run "
        assert user.app.session.moment.event.op == "cast"
        await user.say("run nonfinite")
        assert user.app.session.moment.event.stage == "backward"
        assert "nonfinite: found" in user.text("said")
        assert "!inf" in user.seen() or "!nan" in user.seen()
        await user.press("w")
        assert "at a loss scale of 1 it would be finite" in user.answer()
        await user.press("q")  # closes the answer, not the session
        assert not isinstance(user.app.screen, Answer)
        await user.press("t")
        await user.say("open out0 nonfinite")
        first = len(user.answer().split("\n"))
        await user.press("m")
        assert len(user.answer().split("\n")) > first
        await user.press("escape", "u", "escape")
        assert user.app.session.edits == []
        assert "changed" not in user.text("place")

    drive(size, play)


@pytest.mark.slow
def test_rows_can_be_looked_at_and_gone_to() -> None:
    """Oracle: the session's place, which looking leaves alone and Enter moves, forward and back."""

    async def play(user: Driver) -> None:
        await user.press("n", "n")
        session = user.app.session
        await user.press("up", "up")
        assert session.at_end
        assert session.done == 2
        assert user.text("look").startswith("#4 cast")
        left = user.app.query_one("#left", OptionList)
        left.highlighted += 5
        await user.press("enter")
        assert (session.done, session.moment.event.op, session.moment.event.module) == (2, "relu", "1")
        left.highlighted = 1
        await user.press("enter")
        assert (session.done, session.moment.event.number) == (1, 0)
        await user.press("n")
        left.highlighted += 8  # forward and loss have not run, and show no ops
        await user.press("enter")
        assert (session.stage.name, session.at_end) == ("loss", True)
        await user.press("o", "up", "up")
        left.highlighted = left.option_count - 1
        await user.press("enter")
        assert (session.done, session.at_end) == (len(STAGES), True)

    drive((80, 24), play)


@pytest.mark.slow
def test_every_command_has_its_key() -> None:
    """Oracle: the table of commands; those that want words open the line with their beginning."""

    async def play(user: Driver) -> None:
        await user.press("n")
        for command in COMMANDS.values():
            if command.name in ("quit", "restart"):
                continue
            await user.press(command.key)
            if command.name in ASKING:
                assert user.app.query_one("#line", Input).value == ASKING[command.name]
            await user.press("escape", "escape")
            assert not isinstance(user.app.screen, Answer)
        await user.press("?")
        assert all(command.usage in user.answer() for command in COMMANDS.values())

    drive((80, 24), play)
    known = {each.key for each in COMMANDS.values()} | {":"}
    assert {key for key, _ in KEYS} <= known


@pytest.mark.parametrize("key", ["escape", pytest.param("ctrl+c", marks=pytest.mark.slow)])
def test_a_long_run_tells_how_far_it_is_and_can_be_stopped(key: str) -> None:
    """Oracle: a plain session at the place where it stopped; other keys wait, and it goes on afterwards."""

    async def play(user: Driver) -> None:
        session = user.app.session
        user.app.carry_out("run op == softmax within 50000")
        await user.until(lambda: session.number > 2)
        user.app.carry_out("restart")  # waits for nothing and does nothing, as every key but those that end
        told = r"run op == softmax.* step \d+, \d+ of 10 stages; Esc stops"
        await user.until(lambda: re.search(told, user.text("said")) is not None)
        user.app.simulate_key(key)
        await user.until(lambda: not user.app.busy)
        assert session.number > 2
        assert user.text("said").startswith(f"stopped: step {session.number}, ")
        assert user.text("place").startswith(f"step {session.number}, ")
        there = session.number, session.done
        with small() as other:
            while (other.number, other.done) < there:
                other.next_stage()
            assert other.fingerprint() == session.fingerprint()
        await user.press("n")
        assert (session.number, session.done) > there

    drive((80, 24), play)


@pytest.mark.parametrize("how", ["key", "the terminal goes", "mid-crash"])
def test_quitting_ends_what_runs(how: str) -> None:
    """Oracle: the session, which goes on no more, and is free again; the app, which has ended unharmed."""

    async def play(user: Driver) -> None:
        user.app.carry_out("run op == softmax within 50000")
        await user.until(lambda: user.app.session.number > 1)
        if how == "key":
            user.app.simulate_key("q")
            await user.until(lambda: user.app.return_value is not None)
        elif how == "mid-crash":
            await user.app.query_one("#said").remove()  # as when parts of the screen have gone already
            user.app._tell_progress()

    def go_on(app: Stepper) -> None:
        assert not app._hand._thread.is_alive()
        number = app.session.number
        assert number < 1000
        app.session.finish()
        assert app.session.number in (number, number + 1)  # nothing has run beside it
        assert app.session.done == len(STAGES)

    drive((80, 24), play, after=go_on)


@pytest.mark.slow
def test_escape_and_a_key_in_one_breath_are_the_two() -> None:
    """Oracle: what the two keys do one after the other; a terminal hands them on as Alt and the key."""

    async def play(user: Driver) -> None:
        await user.press("n", "colon", "s", "alt+n")
        assert not user.app.query_one("#line", Input).display
        assert user.app.session.stage.name == "forward"
        await user.press("?")
        assert isinstance(user.app.screen, Answer)
        await user.press("alt+n")
        assert not isinstance(user.app.screen, Answer)

    drive((80, 24), play)


@pytest.mark.parametrize("size", SIZES)
def test_it_is_said_of_a_caught_script_that_it_does_not_go_on(size: tuple[int, int]) -> None:
    """Oracle: the session's note, whole and in sight; it gives way to what is said next."""

    async def play(user: Driver) -> None:
        words = " ".join(line.strip() for line in user.seen().split("\n"))
        assert all(word in words for word in CAUGHT.format("train.py").split())
        assert "? has all keys" in words
        await user.press("n")
        assert "train.py was left" not in user.seen()

    drive(size, play, note=CAUGHT.format("train.py"))


def test_keys_that_are_typed_ahead_are_not_lost() -> None:
    """Oracle: the line, and the place: what the same keys give one by one."""

    async def play(user: Driver) -> None:
        for key in "n:step 2":
            named = {":": "colon", " ": "space"}.get(key, key)
            user.app.post_message(Key(named, key))  # nothing waits for what the one before does
        await user.pilot.pause()
        assert user.app.query_one("#line", Input).value == "step 2"
        await user.until(lambda: not user.app.busy)
        assert user.app.session.stage.name == "cast_weights"
        await user.press("enter")
        assert user.app.session.stage.name == "loss"

    drive((80, 24), play)


@pytest.mark.slow
def test_the_help_has_every_key() -> None:
    """Oracle: the bindings of the app itself."""
    names = {"colon": ":", "question_mark": "?", "full_stop": ".", "escape": "Esc", "ctrl+c": "Ctrl+C",
             "ctrl+q": "Ctrl+Q", "tab": "Tab", "shift+tab": "Shift+Tab"}  # fmt: skip

    async def play(user: Driver) -> None:
        await user.press("?")
        lines = user.answer().split("\n")
        for key in user.app._bindings.key_to_bindings:
            assert any(names.get(key, key) in line for line in lines), key
        for key in ("Up Down", "Enter"):
            assert any(line.startswith(f"{key}  ") for line in lines), lines
        assert all(len(line) <= 76 for line in lines)

    drive((80, 24), play)


def test_what_is_looked_at_is_what_is_opened_and_proved() -> None:
    """Oracle: the session's place, which stays; the name of the row, and what its check says later too."""

    async def play(user: Driver) -> None:
        await user.press("n", "n")
        session = user.app.session
        left = user.app.query_one("#left", OptionList)
        left.highlighted = 1  # the cast of the first weight
        await user.pilot.pause()
        assert "not checked; c does" in user.text("look")
        await user.press("c")
        assert "ok: cast: formats and error bound" in " ".join(user.text("look").split())
        await user.press("t", "enter")
        assert user.answer().startswith("out0 float16[16x12]")
        await user.press("escape")
        assert left.highlighted == 1
        assert (session.done, session.at_end) == (2, True)
        await user.press("down")
        assert "not checked" in user.text("look")
        await user.press("up")
        assert "ok: cast" in user.text("look")
        left.highlighted = 0
        await user.pilot.pause()
        left.highlighted = next(i for i, row in enumerate(user.app._rows) if "forward" in row.text)
        await user.press("t")
        assert user.app.query_one("#line", Input).value == "open input"

    drive((80, 24), play)


@pytest.mark.parametrize("light", [False, True])
def test_both_grounds_can_be_read(light: bool) -> None:
    """Oracle: WCAG 2.2, 1.4.3: letters and ground differ by 4.5 to 1 at least; of the highlighted row too."""

    async def play(user: Driver) -> None:
        assert ("light" in user.app.theme) is light
        await user.say("run nonfinite")
        for line in user.app.screen._compositor.render_strips():
            for part in line:
                style = part.style
                if any(map(str.isalnum, part.text)) and style is not None and style.color and style.bgcolor:
                    assert contrast(style) >= 4.5, (part.text, style)

    drive((80, 24), play, change=grown(2, 1.5e5), light=light)


def contrast(style: Any) -> float:
    """The contrast of letters and ground, from 1 to 21."""
    shades = []
    for colour in (style.color, style.bgcolor):
        parts = [c / 255 for c in colour.get_truecolor()]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        shades.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(shades) / min(shades)


def test_a_stage_that_raises_is_said_and_the_screen_stands_where_the_session_does() -> None:
    """Oracle: by hand: of five stages two run, as the loss raises."""

    def loss(y: Any, targets: Any) -> Any:
        raise KeyError("label")

    async def play(user: Driver) -> None:
        user.app.session.step.loss_fn = loss
        await user.say("step 5")
        assert "error: the stage raised KeyError: 'label'" in user.text("said")
        assert "step 1, stage 2/10 forward, end" in user.text("place")
        assert "forward" in user.text("look")

    drive((80, 24), play)


@pytest.mark.slow
def test_mistakes_are_said_and_nothing_else_happens() -> None:
    """Oracle: the words of the prompt, and the hash before."""

    async def play(user: Driver) -> None:
        before = user.app.session.fingerprint()
        for line, said in (
            ("stpe", "did you mean"),
            ("run amx > 3", "did you mean"),
            ("back", "the beginning"),
        ):
            await user.say(line)
            assert said in user.text("said")
        assert user.app.session.fingerprint() == before

    drive((80, 24), play)


@pytest.mark.slow
def test_the_terminal_can_change_its_size() -> None:
    """Oracle: no line of the right side is longer than it has room for, at each size."""

    async def play(user: Driver) -> None:
        await user.press("n", "n", "o", "o")
        for size in ((80, 24), (60, 20), (200, 60), (120, 30)):
            await user.pilot.resize_terminal(*size)
            await user.pilot.pause()
            await user.pilot.pause()
            room = user.app.query_one("#right").scrollable_content_region.width
            assert max(map(len, user.text("look").split("\n"))) <= room
        await user.press("tab", "shift+tab")

    drive((100, 30), play)


def test_without_colours_it_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the screenshot: under NO_COLOR greys alone; what went wrong is told by letters."""
    monkeypatch.setenv("NO_COLOR", "1")

    async def play(user: Driver) -> None:
        await user.say("run nonfinite")
        picture = user.app.export_screenshot()
        letters = set(re.findall(r"fill: #([0-9a-f]{6})", picture))
        letters.discard("c5c8c6")  # the picture's own frame
        assert len(letters) > 2
        assert all(len({code[:2], code[2:4], code[4:]}) == 1 for code in letters), letters
        assert "!inf" in user.seen() or "!nan" in user.seen()

    drive((80, 24), play, change=grown(2, 1.5e5))


def test_a_failed_check_and_quitting_give_the_exit_code() -> None:
    """Oracle: the exit codes of the command line."""

    async def play(user: Driver) -> None:
        await user.press("n", "q")

    assert drive((80, 24), play).return_value == 0

    async def failing(user: Driver) -> None:
        user.app.prompt.failed = True
        await user.press("q")

    assert drive((80, 24), failing).return_value == 1


def test_the_screen_needs_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: one clear error each: no terminal, one that cannot place text, no textual."""
    from minimp.cli import main

    assert main(["step"]) == 2
    assert "minimp step --plain" in capsys.readouterr().err
    assert main(["step", "--do", "where"]) == 2
    assert "add --plain" in capsys.readouterr().err
    with monkeypatch.context() as terminal:
        for stream in ("sys.stdin", "sys.stdout"):
            terminal.setattr(f"{stream}.isatty", lambda: True, raising=False)
        terminal.setenv("TERM", "dumb")
        assert main(["step"]) == 2
    assert "(dumb)" in capsys.readouterr().err
    monkeypatch.setattr("minimp.cli.step.find_spec", lambda _: None)
    assert main(["step"]) == 2
    assert 'pip install "minimp[tui]"' in capsys.readouterr().err
    assert main(["step", "--plain", "--do", "where"]) == 0
