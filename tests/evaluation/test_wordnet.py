from pathlib import Path

import pytest
from tests.evaluation.tiny import MEANINGS, write_wordnet

from hardtack.errors import InputError
from hardtack.evaluation.resources import DEBIAN
from hardtack.evaluation.wordnet import FILES, WordNet


@pytest.fixture
def wordnet(tmp_path):
    return WordNet(write_wordnet(tmp_path))


def test_synonyms_share_a_meaning_and_phrases_are_left_out(wordnet):
    assert wordnet.synonyms("movie") == ["film", "pic"]
    assert wordnet.synonyms("film") == ["movie", "pic", "shoot"]  # noun meanings first, then verb
    assert wordnet.synonyms("film", "v") == ["shoot"]
    assert wordnet.synonyms("good") == ["full", "well"]
    assert wordnet.synonyms("Film", "n") == ["movie", "pic"]


def test_inflected_words_are_found_by_their_base_forms(wordnet):
    assert wordnet.synonyms("films", "n") == ["film", "movie", "pic"]
    assert wordnet.synonyms("feet") == ["foot"]
    assert wordnet.synonyms("ran") == ["run", "go"]
    assert wordnet.synonyms("watches") == ["watch", "see"]
    assert wordnet.synonyms("larger") == ["big", "large"]
    assert wordnet.pos("better") == {"a"}
    assert wordnet.pos("filming") == {"v"}


def test_adjectives_lose_their_mark_of_position(wordnet):
    assert wordnet.synonyms("abounding") == ["galore"]
    assert wordnet.synonyms("galore") == ["abounding"]


def test_parts_of_speech(wordnet):
    assert wordnet.pos("film") == {"n", "v"}
    assert wordnet.pos("good") == {"n", "a", "r"}
    assert wordnet.pos("the") == frozenset()


@pytest.mark.parametrize(
    "word", ["", " ", "zebra", "aardvark", "café", "\ud83d\ude00", "fil", "filmm", "1", "motion picture "]
)
def test_words_that_are_not_there_have_nothing(wordnet, word):
    assert wordnet.synonyms(word) == []
    assert wordnet.pos(word) == frozenset()


def test_every_word_of_the_files_is_found(wordnet):
    for kind, meanings in MEANINGS.items():
        for words in meanings:
            for word in words:
                assert kind in wordnet.pos(word.partition("(")[0]), word


def test_equal_files_have_equal_digests(tmp_path):
    one, same = (WordNet(write_wordnet(tmp_path / name)) for name in "ab")
    other = WordNet(write_wordnet(tmp_path / "c", irregular={"n": "", "v": "", "a": "", "r": ""}))
    assert one.digest == same.digest != other.digest


def test_an_unknown_part_of_speech_is_refused(wordnet):
    with pytest.raises(InputError, match="part of speech 's'; allowed: n, v, a, r"):
        wordnet.synonyms("good", "s")


@pytest.mark.parametrize("name", FILES)
def test_missing_empty_and_truncated_files_are_refused(tmp_path, name):
    path = write_wordnet(tmp_path) / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(InputError, match="truncated: its last line has no end"):
        WordNet(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        WordNet(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        WordNet(tmp_path)


def test_a_file_cut_at_a_line_or_of_another_version_is_found_out_when_a_word_is_read(tmp_path):
    data = write_wordnet(tmp_path) / "data.noun"
    lines = data.read_bytes().splitlines(keepends=True)
    data.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(InputError, match=r"data\.noun is truncated or damaged at byte"):
        WordNet(tmp_path).synonyms("film", "n")
    data.write_bytes(b"x" + b"".join(lines))
    with pytest.raises(InputError, match=r"data\.noun is truncated or damaged at byte"):
        WordNet(tmp_path).synonyms("plot")
    index = tmp_path / "index.adv"
    index.write_text("good r\nwell r 9 x\n")
    with pytest.raises(InputError, match=r"index\.adv is damaged at 'good'"):
        WordNet(tmp_path).pos("good")


@pytest.mark.skipif(
    not (DEBIAN / "index.noun").is_file(),
    reason="reads the files of Debian's wordnet-base, which are no part of this project; CI installs them",
)
def test_the_real_wordnet():
    wordnet = WordNet(Path(DEBIAN))
    assert wordnet.synonyms("movie") == ["film", "picture", "pic", "flick"]
    assert wordnet.synonyms("films", "v") == ["film", "shoot", "take"]
    assert wordnet.synonyms("galore") == ["abounding"]
    assert wordnet.pos("well") == {"n", "v", "a", "r"}
    assert wordnet.pos("ran") == {"v"}
    assert wordnet.pos("the") == frozenset()
