import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.tiny import chances, save_encoder, save_filler, save_roberta_filler
from tests.toys import FILLER, GOOD, PIECES, VOCABULARY, toy_tokenizer
from transformers import BertForMaskedLM, BertModel, RobertaForMaskedLM

from hardtack.errors import InputError
from hardtack.evaluation.attacks.protocol import Fill, Similar
from hardtack.evaluation.judges import MaskedFiller, SentenceEncoder, _best_sums, folder_digest
from hardtack.evaluation.resources import embedded_model

TEXT = ("the film is good and the plot is bad",)
OTHERS = (("the film is bad",), ("plot",), ("",), ("the film is good and the plot is bad " * 9,), TEXT)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return SentenceEncoder(save_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def filler(tmp_path_factory):
    return MaskedFiller(save_filler(tmp_path_factory.mktemp("filler")))


def embedding(model, text, length=46):
    ids = toy_tokenizer()(text, truncation=True, max_length=length)["input_ids"]
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0).double()


def test_similarities_are_the_cosines_of_mean_hidden_states(encoder):
    (answer,) = encoder.similar([Similar(TEXT, OTHERS)])
    model = BertModel.from_pretrained(encoder.model.name_or_path)
    original = embedding(model.eval(), TEXT[0])
    for cosine, other in zip(answer.tolist(), OTHERS, strict=True):
        expected = torch.nn.functional.cosine_similarity(original, embedding(model, other[0]), dim=0)
        assert cosine == pytest.approx(float(expected), abs=6e-5)
        assert cosine == round(cosine, 4)
    assert answer.dtype == torch.float64
    assert answer[-1] == 1.0
    assert answer.min() < 0.96


def test_asks_together_equal_asks_alone_and_texts_are_embedded_once(encoder):
    asks = [Similar(TEXT, OTHERS[:2]), Similar(("plot", "film"), (("bad", "film"),)), Similar(TEXT, ())]
    together = encoder.similar(asks)
    passes = []
    inner = encoder.model.forward
    encoder.model.forward = lambda **inputs: passes.append(1) or inner(**inputs)
    try:
        alone = [encoder.similar([ask])[0] for ask in asks]
    finally:
        encoder.model.forward = inner
    assert passes == []
    fresh = SentenceEncoder(encoder.model.name_or_path)
    assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(together, alone, strict=True))
    assert [answer.shape for answer in together] == [(2,), (1,), (0,)]
    assert torch.allclose(fresh.similar(asks[1:2])[0], together[1], atol=2e-4)
    # The columns of a pair are read as one text.
    assert fresh.similar([Similar(("plot", "film"), (("plot film",),))])[0] == 1.0


def test_a_folder_may_ask_for_the_first_token(tmp_path):
    save_encoder(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    encoder = SentenceEncoder(tmp_path)
    (cosine,) = encoder.similar([Similar(TEXT, OTHERS[:1])])[0].tolist()
    model = BertModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        first = [
            model(**toy_tokenizer()(text[0], return_tensors="pt")).last_hidden_state[0, 0].double()
            for text in (TEXT, OTHERS[0])
        ]
    assert cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(*first, dim=0)), abs=6e-5)
    pooling.write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(InputError, match="pools by pooling_mode_max_tokens; allowed: "):
        SentenceEncoder(tmp_path)
    pooling.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        SentenceEncoder(tmp_path)


def test_the_packaged_encoder_knows_meanings():
    encoder = SentenceEncoder()
    assert encoder.digest == folder_digest(Path(embedded_model()))
    film = ("the film is a charming journey",)
    others = (("the movie is a charming trip",), ("taxes rose in May",))
    near, far = encoder.similar([Similar(film, others)])[0]
    assert near > 0.8 > 0.3 > far


# ------------------------------------------------------------------ masked language models


def test_a_masked_word_gets_the_likeliest_whole_words(filler):
    text = "the film is good"
    (answer,) = filler.fill([Fill((text,), 0, 4, 8, top=5)])
    model = BertForMaskedLM.from_pretrained(filler.model.name_or_path).eval()
    ids = toy_tokenizer()("the [MASK] is good")["input_ids"]
    row = chances(model, ids, 2)
    words = [word for word in VOCABULARY if word.isalnum()]  # no special tokens, no continuing pieces
    expected = sorted(words, key=lambda word: -row[VOCABULARY.index(word)])[:5]
    assert [word for word, _ in answer] == expected
    chance = {word: float(row[VOCABULARY.index(word)]) for word in expected}
    assert [p for _, p in answer] == pytest.approx([chance[word] for word in expected], abs=6e-5)
    assert all(p == round(p, 4) for _, p in answer)
    assert set(PIECES) & set(VOCABULARY)


def test_a_word_may_be_left_standing(filler):
    text = "the film is good"
    masked, standing = filler.fill(
        [Fill((text,), 0, 4, 8, top=5), Fill((text,), 0, 4, 8, top=5, masked=False)]
    )
    model = BertForMaskedLM.from_pretrained(filler.model.name_or_path).eval()
    row = chances(model, toy_tokenizer()(text)["input_ids"], 2)
    assert standing[0][1] == pytest.approx(float(row[VOCABULARY.index(standing[0][0])]), abs=6e-5)
    assert standing != masked


def test_a_standing_word_of_several_pieces_is_replaced_piece_by_piece(filler):
    text = "a filmness here"  # film ##ness
    assert toy_tokenizer().tokenize(text) == ["a", "film", "##ness", "here"]
    (answer,) = filler.fill([Fill((text,), 0, 2, 10, top=7, masked=False)])
    model = BertForMaskedLM.from_pretrained(filler.model.name_or_path).eval()
    ids = toy_tokenizer()(text)["input_ids"]
    first, second = chances(model, ids, 2), chances(model, ids, 3)
    words = [word for word in VOCABULARY if word.isalnum()]
    sums = {
        word + piece[2:]: float(first[VOCABULARY.index(word)] + second[VOCABULARY.index(piece)])
        for word in words
        for piece in PIECES
    }
    expected = sorted(sums, key=lambda word: -sums[word])[:7]
    assert [word for word, _ in answer] == expected
    assert [p for _, p in answer] == pytest.approx([sums[word] for word in expected], abs=2e-4)


def test_asks_together_equal_asks_alone_and_are_remembered(filler):
    asks = [Fill(("the film is good " * n,), 0, 4, 8, top=n) for n in (1, 2, 5)]
    asks += [Fill(("good film", "bad plot"), 1, 4, 8, top=3, pair=pair) for pair in (False, True)]
    together = filler.fill(asks)
    fresh = MaskedFiller(filler.model.name_or_path)
    alone = [fresh.fill([ask])[0] for ask in asks]
    assert [[word for word, _ in answer] for answer in together] == [[w for w, _ in a] for a in alone]
    assert [len(answer) for answer in together] == [1, 2, 5, 3, 3]
    assert together[3] != together[4]  # with the other column in sight the model reads another text
    assert fresh.fill(asks) == alone


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("at", [0, 60, 119])
def test_around_a_word_of_a_text_that_is_too_long(filler, at, pair):
    words = ["film"] * 120
    words[at] = "good"
    text = " ".join(words)
    start = sum(len(word) + 1 for word in words[:at])
    row, places = filler._reader.around(Fill((text, text), 0, start, start + 4, top=3, pair=pair))
    assert len(row["input_ids"]) <= 46
    assert [row["input_ids"][place] for place in places] == [VOCABULARY.index("[MASK]")]
    (answer,) = filler.fill([Fill((text, text), 0, start, start + 4, top=3, pair=pair)])
    assert len(answer) == 3


def test_a_mask_that_the_text_holds_already_is_not_the_one_that_is_filled(filler):
    text = "[MASK] film [MASK]"
    row, places = filler._reader.around(Fill((text,), 0, 7, 11, top=3))
    assert row["input_ids"].count(VOCABULARY.index("[MASK]")) == 3
    assert places == [2]


def test_no_word_to_fill_in_is_a_mistake_of_the_attack(filler):
    for ask in (Fill(("a",), 0, 0, 0, top=1), Fill(("a",), 0, 0, 2, top=1), Fill(("a",), 0, 0, 1, top=0)):
        with pytest.raises(TypeError, match="no word to fill in"):
            filler.fill([ask])


def test_a_byte_level_tokenizer_marks_what_starts_a_word(tmp_path):
    filler = MaskedFiller(save_roberta_filler(tmp_path))
    text = "bad film good"
    for place in ((0, 3), (4, 8), (9, 13)):
        for masked in (True, False):
            (answer,) = filler.fill([Fill((text,), 0, *place, top=4, masked=masked)])
            assert answer
            assert all(word.isalnum() and word.isascii() for word, _ in answer)
    (whole,) = filler.fill([Fill((text,), 0, 4, 8, top=50)])
    tokenizer = filler._reader.tokenizer
    model = RobertaForMaskedLM.from_pretrained(tmp_path).eval()
    ids = tokenizer("bad<mask> good")["input_ids"]
    row = chances(model, ids, ids.index(tokenizer.mask_token_id))
    good = tokenizer.convert_tokens_to_ids("\u0120good")
    assert dict(whole)["good"] == pytest.approx(float(row[good]), abs=1e-4)


def test_folders_that_are_no_judges_are_refused_in_one_line(tmp_path):
    encoder = save_encoder(tmp_path / "encoder")
    for make, folder, message in (
        (SentenceEncoder, tmp_path / "nothing", "has no .safetensors file"),
        (MaskedFiller, encoder, "is no masked language model: it lacks "),
    ):
        with pytest.raises(InputError, match=message) as refused:
            make(folder)
        assert "\n" not in str(refused.value)
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"sentence encoder .* cannot be loaded"):
        SentenceEncoder(encoder)
    bare = save_filler(tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    for name in ("vocab.txt", "tokenizer_config.json"):
        (bare / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"tokenizer|cannot be loaded"):
        MaskedFiller(bare)


def test_memory_that_runs_out_is_halved_around(filler, monkeypatch):
    asks = [
        Fill((f"{word} film is {other}",), 0, 0, len(word), top=2) for word in GOOD for other in FILLER[:4]
    ]
    expected = MaskedFiller(filler.model.name_or_path).fill(asks)
    small = MaskedFiller(filler.model.name_or_path)
    inner = small.model.forward

    def forward(input_ids, **more):
        if len(input_ids) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(input_ids=input_ids, **more)

    monkeypatch.setattr(small.model, "forward", forward)
    assert [[w for w, _ in a] for a in small.fill(asks)] == [[w for w, _ in a] for a in expected]


SCORES = st.lists(st.floats(-9, 0).map(lambda x: round(x, 2)), min_size=1, max_size=5)


@given(st.lists(SCORES, min_size=1, max_size=3))
def test_the_best_sums_come_first_and_each_choice_once(lists):
    options = [[(value, 0) for value in sorted(values, reverse=True)] for values in lists]
    found = list(_best_sums(options))
    assert len({choice for _, choice in found}) == len(found) == math.prod(map(len, options))
    sums = [score for score, _ in found]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(sums))
    for score, choice in found:
        assert score == pytest.approx(sum(options[i][k][0] for i, k in enumerate(choice)))
    assert list(_best_sums([*options, []])) == []
