"""Every test asserts something, every random one can be repeated, and none fails because a machine is slow."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS

TESTS = ROOT / "tests"
MODULES = {path: ast.parse(path.read_text()) for path in sorted(TESTS.rglob("*.py"))}
# Calls that fail by themselves where the behaviour breaks.
FAILING = {"raises", "fail", "warns", "deprecated_call", "assert_called_once", "assert_called_once_with"}
Function = ast.FunctionDef | ast.AsyncFunctionDef
# Tests of which the behaviour is that nothing is raised, by their file and name.
DOES_NOT_RAISE = {
    # Playwright's waits fail where the page lacks what they wait for.
    "kfp/test_ui.py::test_the_report_is_shown_as_a_page_and_as_markdown",
    "kfp/test_ui.py::test_the_list_of_pipelines_shows_the_description",
    "kfp/test_ui.py::test_the_plan_names_the_run_and_the_loop",
    "kfp/test_ui.py::test_an_iteration_shows_its_benchmark",
    "kfp/test_ui.py::test_the_log_of_a_step_is_there",
    # The helper's wait fails where the API server says something else.
    "cluster/test_faults.py::test_the_exit_code_of_a_pod_decides_about_restarts",
    "cluster/test_admission.py::test_an_overlay_limits_registries_and_demands_digests",
    # Checks that refuse other things, and return nothing.
    "unit/mantis/config/test_training_parts.py::test_the_demo_trains_the_parts_that_a_family_has",
    "unit/mantis/models/families/test_families.py::test_a_family_keeps_its_promise",
    "unit/mantis/models/families/test_families.py::test_a_family_keeps_its_promise_under_the_compact_template",
    "unit/mantis/tracking/test_reachability.py::test_mlflow_is_reachable_whatever_it_says_of_the_experiment",
    "unit/pipelines/execution/test_base_rows.py::test_a_model_from_scratch_has_nothing_to_check",
}
# What draws by its arguments: without one it has no seed. `drawn_seed` gives a seed that a failure prints.
DRAWS = {"Random", "default_rng"}
MODULE_DRAWS = {f"random.{name}" for name in ("random", "choice", "choices", "randint", "sample", "shuffle", "uniform")}
SHORTEST_LIMIT = 5  # seconds; with a shorter limit a test asks again and again, or sees that nothing comes
WAITS = {"join", "wait", "get", "put", "result"}
ELSEWHERE = {"cluster", "kfp", "gpu"}  # an answer of a cluster may be an error after a shorter time


@dataclass(frozen=True, kw_only=True)
class Body:
    """What a function does: whether it asserts itself, and the names of what it calls."""

    name: str
    asserts: bool
    calls: frozenset[str]


def body_of(function: Function) -> Body:
    """The body, with those of the functions within it."""
    nodes = list(ast.walk(function))
    calls = {_called(node) for node in nodes if isinstance(node, ast.Call)}
    own = any(isinstance(node, ast.Assert | ast.Raise) for node in nodes) or bool(calls & FAILING)
    own = own or any(name.startswith("assert_") for name in calls)
    return Body(name=function.name, asserts=own, calls=frozenset(calls))


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def bodies_of(tree: ast.AST) -> list[Body]:
    return [body_of(node) for node in ast.walk(tree) if isinstance(node, Function)]


def test_every_test_asserts_something() -> None:
    assert set(without_assertion()) == DOES_NOT_RAISE


def without_assertion() -> Iterator[str]:
    bodies = {path: bodies_of(tree) for path, tree in MODULES.items()}
    asserting = asserting_functions(bodies)
    for path, found in bodies.items():
        if path.name.startswith("test_"):
            reachable = asserting[path] | imported(path, asserting)
            for body in found:
                if body.name.startswith("test_") and not asserts(body, reachable):
                    yield f"{path.relative_to(TESTS).as_posix()}::{body.name}"


def asserting_functions(bodies: dict[Path, list[Body]]) -> dict[Path, set[str]]:
    """The functions of each module that assert, themselves or through others of the tests."""
    found: dict[Path, set[str]] = {path: set() for path in bodies}
    while True:
        before = sum(map(len, found.values()))
        for path, own in bodies.items():
            reachable = found[path] | imported(path, found)
            found[path] |= {body.name for body in own if asserts(body, reachable)}
        if sum(map(len, found.values())) == before:
            return found


def asserts(body: Body, reachable: set[str]) -> bool:
    """Whether the body asserts, or calls one of the `reachable` functions, which do."""
    return body.asserts or bool(body.calls & reachable)


def imported(path: Path, asserting: dict[Path, set[str]]) -> set[str]:
    """The names of asserting functions that the module imports from others of the tests."""
    found: set[str] = set()
    for node in MODULES[path].body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests."):
            origin = ROOT / f"{node.module.replace('.', '/')}.py"
            names = {alias.name for alias in node.names}
            found |= asserting.get(origin, set()) & names
    return found


def test_a_test_without_an_assertion_is_found() -> None:
    silent, spoken, refused = bodies_of(ast.parse("def a(): f()\ndef b(): assert f()\ndef c(): pytest.raises(f)"))
    assert [asserts(body, set()) for body in (silent, spoken, refused)] == [False, True, True]
    assert asserts(silent, {"f"})


def test_every_draw_has_a_seed() -> None:
    """hypothesis prints its own."""
    found = [place for path, tree in MODULES.items() for place in unseeded(tree, path.relative_to(TESTS).as_posix())]
    assert [place for place in found if not place.startswith("fixtures/seeds.py")] == []


def test_a_draw_without_a_seed_is_found() -> None:
    drawn = "f(seed=os.getpid())\nrandom.Random()\nnp.random.default_rng()\nrandom.choice([1])\nos.kill(os.getpid(), 9)"
    assert list(unseeded(ast.parse(drawn), "x.py")) == ["x.py:1", "x.py:2", "x.py:3", "x.py:4"]
    assert list(unseeded(ast.parse("random.Random(3).choice([1])\ndefault_rng(seed)"), "x.py")) == []


def unseeded(tree: ast.AST, name: str) -> Iterator[str]:
    """The places of draws that no seed decides."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        last = called.rpartition(".")[2]
        of_the_module = called in MODULE_DRAWS
        without = last in DRAWS and not node.args and not node.keywords
        as_seed = any(word.arg == "seed" and "getpid" in ast.unparse(word.value) for word in node.keywords)
        if of_the_module or without or as_seed or called in ("secrets.randbelow", "secrets.token_bytes"):
            yield f"{name}:{node.lineno}"


def test_no_test_gives_a_busy_machine_a_few_seconds() -> None:
    """A limit above that of HANG_SECONDS belongs to a slow test with a timeout of its own."""
    places = {path: path.relative_to(TESTS) for path in MODULES}
    checked = {path: place for path, place in places.items() if place.parts[0] not in ELSEWHERE}
    assert [each for path, place in checked.items() for each in short_waits(MODULES[path], place.as_posix())] == []


def test_a_wait_of_some_seconds_is_found() -> None:
    waits = "p.communicate(timeout=240)\nend = time.monotonic() + 60\nthread.join(5)\nwait_procs(ps, timeout=10)"
    assert list(short_waits(ast.parse(waits), "x.py")) == ["x.py:1", "x.py:2", "x.py:3", "x.py:4"]
    allowed = "p.communicate(timeout=HANG_SECONDS)\nthread.join(0.05)\nurlopen(url, timeout=2)\nrun(timeout=3000)"
    assert list(short_waits(ast.parse(allowed), "x.py")) == []


def short_waits(tree: ast.AST, name: str) -> Iterator[str]:
    """The places of waits whose limit is a number of seconds that a busy machine may exceed."""
    for node in ast.walk(tree):
        limits: list[ast.expr] = []
        if isinstance(node, ast.Call):
            limits = [word.value for word in node.keywords if word.arg == "timeout"]
            if isinstance(node.func, ast.Attribute) and node.func.attr in WAITS and len(node.args) == 1:
                limits += node.args
        elif isinstance(node, ast.BinOp) and ast.unparse(node).startswith("time.monotonic() + "):
            limits = [node.right]
        for limit in limits:
            seconds = limit.value if isinstance(limit, ast.Constant) else None
            if isinstance(seconds, int | float) and SHORTEST_LIMIT <= seconds <= HANG_SECONDS:
                yield f"{name}:{limit.lineno}"
