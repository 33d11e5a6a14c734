from components.evaluation.benchmarks import load_benchmark
from components.evaluation.generate import Question, batches
from components.evaluation.reader import read_samples

COLOURS = ("red", "blue", "green", "dark grey")


def questions(source, allowed=()):
    samples = read_samples(source / "demo-multi", load_benchmark("demo-multi"))
    return [
        Question(id=sample.id, prompt=sample.prompt, pictures=sample.pictures, allowed=allowed) for sample in samples
    ]


def ask(answerer, asked, batch_tokens):
    counted = []
    answers = answerer.answer(asked, batch_tokens=batch_tokens, done=counted.append)
    assert sum(counted) == len(asked)
    return answers


def test_batched_equals_one_at_a_time(answerer, source) -> None:
    asked = questions(source)
    alone = ask(answerer, asked, 1)
    assert len(set(alone)) > 10  # answers that are all alike would prove nothing
    assert ask(answerer, asked, 400) == alone
    assert ask(answerer, asked[::-1], 100_000) == alone[::-1]


def test_restricted_answers_are_valid_ones(answerer, source) -> None:
    answers = ask(answerer, questions(source, COLOURS), 500)
    assert set(answers) <= set(COLOURS)
    assert len(set(answers)) > 1
    assert answers == ask(answerer, questions(source, COLOURS), 1)


def test_one_option_may_begin_another(answerer, source) -> None:
    for allowed in (("red", "red blue"), ("red",)):
        assert set(ask(answerer, questions(source, allowed)[:20], 500)) <= set(allowed)


def test_restriction_is_per_question(answerer, source) -> None:
    free, bound = questions(source)[:10], questions(source, ("blue",))[10:20]
    answers = ask(answerer, free + bound, 100_000)
    assert answers[10:] == ["blue"] * 10
    assert answers[:10] == ask(answerer, free, 1)


def test_batches_hold_the_budget_and_everything() -> None:
    lengths = [5, 90, 7, 7, 30, 200, 6]
    made = batches(lengths, 8, 100)
    assert sorted(place for batch in made for place in batch) == list(range(7))
    for batch in made:
        assert len(batch) == 1 or len(batch) * (max(lengths[place] for place in batch) + 8) <= 100
    assert len(batches([10] * 100, 10, 200)) == 10
