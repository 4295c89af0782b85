import json
from itertools import pairwise

import numpy as np
import pytest
import xxhash

from hardtack.errors import InputError
from hardtack.tasks import made
from hardtack.tasks.made import BAD, GOOD, NEIGHBOURS, TEMPLATES, made_task, words
from hardtack.tasks.text import load_task

SENTIMENT = {
    word: sign
    for groups, sign in ((GOOD, 1), (BAD, -1))
    for group in groups
    for word in " ".join(group).split()
}


def tokens(task, split):
    return [text.split() for (text,) in task.table(split).texts]


def test_the_grammar_is_frozen():
    # Numbers measured on this task are compared over releases: a change here needs another task name.
    task = load_task("made")
    assert task.fingerprint() == "42c368f54a1f937b607f458c78a4e419"
    table = json.dumps({word: list(near) for word, near in NEIGHBOURS.items()}, sort_keys=True)
    assert xxhash.xxh3_128_hexdigest(table.encode()) == "ae7b22ac973999ea073026207274e101"


def test_sizes_labels_and_seeds():
    task = made_task(30, 11, 12, seed=5)
    assert [len(task.table(split)) for split in ("train", "validation", "test")] == [30, 11, 12]
    assert task.table("test").labels.sum() == 6
    assert (task.labels, task.cut) == (("negative", "positive"), ())
    assert task.fingerprint() == made_task(30, 11, 12, seed=5).fingerprint()
    assert task.fingerprint() != made_task(30, 11, 12, seed=6).fingerprint()
    with pytest.raises(InputError, match="1 sentences for split 'test' of the made task; allowed: 2"):
        made_task(test=1)


def test_no_sentence_twice_and_all_of_them_short():
    task = load_task("made")
    texts = [text for split in task.splits.values() for text in split.texts]
    assert len(set(texts)) == len(texts)
    lengths = [len(text.split()) for (text,) in texts]
    assert min(lengths) >= 8
    assert max(lengths) <= 22


def test_a_share_of_sentiment_words_is_held_out_of_training():
    task = made_task(2000, 400, 400)
    seen = {word for row in tokens(task, "train") for word in row} & SENTIMENT.keys()
    assert seen == set(words(GOOD, "train")) | set(words(BAD, "train"))
    for split, other in (("validation", "test"), ("test", "validation")):
        own = set(words(GOOD, split)) | set(words(BAD, split))
        there = [word for row in tokens(task, split) for word in row if word in SENTIMENT]
        assert set(there) <= seen | own
        assert not set(there) & (set(words(GOOD, other)) | set(words(BAD, other)))
        assert 0.5 < np.mean([word in own for word in there]) < 0.7


def test_counting_sentiment_words_does_not_solve_it():
    task = made_task(2000, 2, 2)
    counts = np.array([sum(SENTIMENT.get(word, 0) for word in row) for row in tokens(task, "train")])
    right = np.where(counts == 0, 0.5, (counts > 0) == task.table("train").labels)
    assert right.mean() < 0.75


def test_the_words_of_training_say_little_about_the_test():
    task = made_task(1000, 2, 1000)
    odds = {}
    for row, label in zip(tokens(task, "train"), task.table("train").labels, strict=True):
        for word in set(row):
            odds.setdefault(word, [1.0, 1.0])[label] += 1
    bayes = [
        sum(np.log(odds[word][1] / odds[word][0]) for word in row if word in odds)
        for row in tokens(task, "test")
    ]
    assert np.mean((np.array(bayes) > 0) == task.table("test").labels) < 0.7


def test_swaps_stay_among_near_synonyms():
    every = [word for group in (*GOOD, *BAD) for word in " ".join(group).split()]
    assert len(set(every)) == len(every)  # no word in two groups, none both good and bad
    for word, near in NEIGHBOURS.items():
        assert word not in near
        assert near
        assert all(word in NEIGHBOURS[other] for other in near)
        assert {SENTIMENT.get(other) for other in near} == {SENTIMENT.get(word)}
        assert word.isalpha()


def test_every_template_speaks_of_one_domain_and_says_what_it_judges():
    for template in TEMPLATES:
        assert "{g}" in template or "{o}" in template
        assert "{thing}" in template or "{part}" in template
        assert set(made.re.findall(r"{(\w+)}", template)) <= {
            "g",
            "o",
            "thing",
            "part",
            "part2",
            "again",
            *made.FILLERS,
        }


def test_articles_fit_their_words():
    rows = [row for split in ("train", "test") for row in tokens(made_task(1000, 2, 400), split)]
    pairs = {(a, b) for row in rows for a, b in pairwise(row) if a in ("a", "an")}
    assert all((a == "an") == (b[0] in "aeio" or b[:2] == "un") for a, b in pairs)
    assert ("an", "excellent") in pairs
