"""Language models by the same verbs: texts alone, perplexity, from scratch, pruned, or refused."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.test_resuming import stopping_at
from tests.toys import BAD, FILLER, GOOD, VOCABULARY, padless_tokenizer, saved_toy, toy_gpt2_config
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import hardtack
from hardtack.errors import InputError
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.methods import METHODS
from hardtack.reports.page import report
from hardtack.reports.show import show, show_text
from hardtack.reports.table import rows_text
from hardtack.select import Sparsity
from hardtack.stages import Common, evaluate, export, retrain, search, soup, train
from hardtack.studies import study
from hardtack.studies.contents import Contents
from hardtack.tasks.task import PERPLEXITY
from hardtack.tasks.text import load_task
from hardtack.training.adversarial import FreeLB

WORDS = (*GOOD, *FILLER, *BAD)
"""A text is a stretch of these, so that each word says which one follows."""
CPU = Common(device="cpu", batch_size=8, save_seconds=0.0)
HALF = (Sparsity.parse(0.5),)


@pytest.fixture
def place(tmp_path):
    """A folder of texts alone, and a model that is a config and a tokenizer."""
    (tmp_path / "texts").mkdir()
    for seed, (split, size) in enumerate({"train": 48, "validation": 16, "test": 24}.items()):
        starts = torch.randint(len(WORDS), (size, 2), generator=torch.Generator().manual_seed(seed)).tolist()
        texts = [[WORDS[(first + n) % len(WORDS)] for n in range(4 + more % 9)] for first, more in starts]
        lines = "".join(f"{' '.join(words)}\n" for words in texts)
        (tmp_path / "texts" / f"{split}.txt").write_text(lines)
    toy_gpt2_config().save_pretrained(tmp_path / "config")
    padless_tokenizer().save_pretrained(tmp_path / "config")
    return tmp_path


@pytest.fixture
def run(place):
    return {"task": str(place / "texts"), "common": CPU}


@pytest.fixture
def dense(place, run):
    return train(str(place / "config"), out=place / "dense", epochs=6, lr=1e-2, **run)


def by_hand(folder, texts):
    """The perplexity by transformers' own loss, text by text: a mean over tokens, weighed by their number."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    nats, tokens = 0.0, 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            nats += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return math.exp(nats / tokens)


def texts_of(place, split="test"):
    return (place / "texts" / f"{split}.txt").read_text().splitlines()


def test_texts_alone_are_a_task_without_labels(place, tmp_path):
    task = load_task(str(place / "texts"))
    assert (task.labels, task.metric, task.cut) == ((), PERPLEXITY, ())
    assert [text for (text,) in task.splits["test"].texts] == texts_of(place)
    (tmp_path / "one.jsonl").write_text("".join(json.dumps({"text": f"film {n}"}) + "\n" for n in range(40)))
    cut = load_task(str(tmp_path / "one.jsonl"))
    assert cut.cut == ("validation", "test")
    assert [len(cut.splits[split]) for split in ("train", "validation", "test")] == [32, 4, 4]
    assert len(cut.limited(train_examples=7).splits["train"]) == 7
    (tmp_path / "few.txt").write_text("a film\n\nthe film\n")
    with pytest.raises(InputError, match="has 2 rows: too few to cut validation and test from"):
        load_task(str(tmp_path / "few.txt"))
    (tmp_path / "more.jsonl").write_text('{"text": "a", "id": 1}\n')  # there a label column may be missing
    with pytest.raises(InputError, match="has no label column 'label'"):
        load_task(str(tmp_path / "more.jsonl"))
    with pytest.raises(InputError, match="has no label column 'gold'"):
        load_task(str(tmp_path / "one.jsonl"), label_column="gold")


def test_perplexity_by_hand():
    # Two texts of 3 and 1 counted tokens, ln 2 nats each but one of ln 16: (3 ln 2 + 4 ln 2) / 4.
    two = math.log(2)
    found = PERPLEXITY(torch.tensor([[3 * two, 3.0], [4 * two, 1.0]]), torch.zeros(2))
    assert found == pytest.approx(2 ** (7 / 4))
    assert PERPLEXITY.better(2.0, 3.0)
    with pytest.raises(InputError, match="a token after the first"):
        PERPLEXITY(torch.zeros(2, 2), torch.zeros(2))


def test_a_model_of_a_config_is_trained_and_measured_as_transformers_does(dense, place, run):
    before = evaluate(str(place / "config"), out=place / "before", **run)["rows"][0]
    after = evaluate(dense["folder"], out=place / "after", **run)["rows"][0]
    assert after["perplexity"] == pytest.approx(by_hand(dense["model"], texts_of(place)), rel=1e-5)
    assert after["perplexity"] < before["perplexity"] / 2
    assert "untrained-head" in before["flags"]
    assert "untrained-head" not in after["flags"]
    assert (after["clean_accuracy"], after["method"], after["examples"]) == (None, "dense", 24)
    assert dense["validation_perplexity"] == pytest.approx(
        by_hand(dense["model"], texts_of(place, "validation")), rel=1e-5
    )
    other = Common(device="cpu", batch_size=3)
    again = evaluate(dense["folder"], task=run["task"], out=place / "again", common=other)["rows"][0]
    assert again["perplexity"] == pytest.approx(after["perplexity"], rel=1e-6)  # whatever the padding
    assert f"{after['perplexity']:.2f}" in rows_text([after])
    assert "under attack" not in rows_text([after])
    assert show_text(show(run["task"])).startswith("task texts: texts alone, perplexity, ")
    model = hardtack.load(dense["folder"], ()).model
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert model.transformer.wte.weight is model.lm_head.weight


def test_equal_seeds_draw_equal_models_and_others_other_ones(place):
    states = [hardtack.load(str(place / "config"), (), seed=seed).model.state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["transformer.wte.weight"], states[2]["transformer.wte.weight"])


def test_the_best_epoch_has_the_lowest_perplexity(place, run):
    done = train(str(place / "config"), out=place / "out", epochs=4, lr=5e-2, epoch_rule="best", **run)
    log = [json.loads(line) for line in (place / "out" / "log.jsonl").read_text().splitlines()]
    seen = [line["perplexity"] for line in log if line.get("event") == "validation"]
    assert len(seen) == 4
    assert done["validation_perplexity"] == min(seen)
    assert by_hand(done["model"], texts_of(place, "validation")) == pytest.approx(min(seen), rel=1e-5)


def test_a_stopped_training_goes_on_bit_for_bit(place, run):
    fit = {"epochs": 2, "lr": 1e-2, "objective": FreeLB(steps=2), **run}
    whole = train(str(place / "config"), out=place / "whole", **fit)
    with pytest.raises(KeyboardInterrupt):
        train(str(place / "config"), out=place / "stopped", watch=stopping_at("training", 7), **fit)
    done = train(str(place / "config"), out=place / "stopped", **fit)
    one, other = (load_file(f"{each['model']}/model.safetensors") for each in (whole, done))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert done["validation_perplexity"] == whole["validation_perplexity"]


@pytest.mark.parametrize("name", ["magnitude", "random", "wanda", "obs", "retention"])
def test_it_is_pruned_by_the_same_searches(dense, place, run, name):
    done = search(METHODS[name](sparsities=HALF), dense["folder"], out=place / "search", **run)
    (ticket,) = done["tickets"]
    row = evaluate(ticket, out=place / "rows", **run)["rows"][0]
    assert row["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert not {*row["flags"]} - {"train-test-overlap"}
    whole = evaluate(dense["folder"], out=place / "whole", **run)["rows"][0]
    assert whole["perplexity"] < row["perplexity"] < math.inf
    if name == "retention":
        plain = search(METHODS["magnitude"](sparsities=HALF), dense["folder"], out=place / "plain", **run)
        other = evaluate(plain["tickets"][0], out=place / "other", **run)["rows"][0]
        assert row["perplexity"] < other["perplexity"]


def test_a_ticket_is_retrained_with_its_mask_held(dense, place, run):
    found = search(METHODS["magnitude"](sparsities=HALF), dense["folder"], out=place / "search", **run)
    (ticket,) = found["tickets"]
    raw = evaluate(ticket, out=place / "raw", **run)["rows"][0]
    done = retrain(ticket, out=place / "retrained", epochs=2, lr=1e-2, **run)
    row = evaluate(done["folder"], out=place / "rows", **run)["rows"][0]
    assert row["perplexity"] < raw["perplexity"]
    assert row["sparsity"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(InputError, match="is a language model"):
        export(done["folder"], to="dense", out=place / "exported")


def test_other_texts_are_a_shift_and_a_report_is_written(dense, place, run):
    shutil.copytree(place / "texts", place / "others")
    found = evaluate(dense["folder"], out=place / "rows", shifted=[str(place / "others")], **run)["rows"]
    assert found[0]["perplexity"] == found[1]["perplexity"]
    assert found[1]["shifted_from"] == "texts"
    assert evaluate(dense["folder"], out=place / "none", dry_run=True, **run)["stages"]
    for name in ("report.html", "report.md", "report.csv"):
        report([place / "rows"], out=place / name)
    assert f"{found[0]['perplexity']:.2f}" in (place / "report.md").read_text()


def test_a_study_trains_prunes_and_measures_it(place):
    (place / "lm.toml").write_text(
        f"""
[common]
task = "{place / "texts"}"
device = "cpu"
batch_size = 16
[[stage]]
name = "dense"
verb = "train"
model = "{place / "config"}"
epochs = 1
lr = 1e-2
[[stage]]
name = "tickets"
verb = "search"
method = "wanda"
model = "@dense"
sparsity = 0.5
[[stage]]
name = "measured"
verb = "evaluate"
target = ["@dense", "@tickets"]
"""
    )
    study(place / "lm.toml", out=place / "study")
    rows = [json.loads(line) for line in (place / "study" / "rows.jsonl").read_text().splitlines()]
    assert sorted(row["method"] for row in rows) == ["dense", "wanda"]
    assert all(row["perplexity"] > 1 for row in rows)


def test_what_does_not_fit_is_refused_in_one_line(dense, place, run):
    def refused(said, stage, *values, **settings):
        with pytest.raises(InputError, match=said) as caught:
            stage(*values, out=place / "refused", **{**run, **settings})
        assert "\n" not in str(caught.value)

    saved_toy(place / "bert")
    refused("is a bert model, which predicts no next token; .*--label-column", train, str(place / "bert"))
    refused("an attack needs labels", evaluate, dense["folder"], attacks=[DeepWordBug()])
    refused("about classes", train, str(place / "config"), distil_from=dense["folder"])
    refused("the score of a soup needs labels", soup, [dense["folder"]])
    refused("has a config and no weights", search, METHODS["random"](HALF), dense["folder"],
            start=str(place / "config"))  # fmt: skip
    refused("one has labels, one has none", evaluate, dense["folder"], shifted=["made"])
    small = toy_gpt2_config()
    small.vocab_size = 7
    small.save_pretrained(place / "small")
    padless_tokenizer().save_pretrained(place / "small")
    refused("allowed: a vocab_size that holds them all", train, str(place / "small"))
    refused("cannot be loaded as a text classifier", train, str(place / "config"), task="made")


@pytest.mark.parametrize(
    "file",
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "m.pth", "tf_model.h5", "f.msgpack"],
)
def test_pickled_weights_are_refused_and_never_drawn_anew(place, run, file):
    (place / "config" / file).write_bytes(b"weights")
    with pytest.raises(InputError, match=r"no file named model\.safetensors") as caught:
        train(str(place / "config"), out=place / "refused", **run)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"no file named model\.safetensors"):
        Contents().model(str(place / "config"))  # in a study, too, they are content that nobody read


def test_an_untied_head_is_no_classifier_and_is_left_alone(place, run):
    LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=48, bos_token_id=2,
        eos_token_id=3, tie_word_embeddings=False,
    ).save_pretrained(place / "llama")  # fmt: skip
    padless_tokenizer().save_pretrained(place / "llama")
    made = train(str(place / "llama"), out=place / "trained", epochs=1, lr=1e-2, **run)
    (ticket,) = search(METHODS["retention"](sparsities=HALF), made["folder"], out=place / "s", **run)[
        "tickets"
    ]
    weights = load_file(f"{ticket}/weights.safetensors")
    assert weights
    assert not any("lm_head" in name or "embed" in name for name in weights)
    assert "lm_head.weight" in load_file(f"{made['model']}/model.safetensors")
    assert evaluate(ticket, out=place / "rows", **run)["rows"][0]["perplexity"] > 1


def test_a_trained_model_whose_weights_are_gone_is_no_model_from_scratch(dense, run, place):
    (place / "dense" / "model" / "model.safetensors").unlink()
    for call in (evaluate, train):
        with pytest.raises(InputError, match="has no weights any more: they were removed; allowed: "):
            call(str(place / "dense"), out=place / "again", **run)
