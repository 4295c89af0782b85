import json
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.toys import toy_bert, toy_gpt2, toy_tokenizer

from hardtack.errors import InputError
from hardtack.tasks.text import Encoder, Hub, load_task

ROWS = [(f"this film is {'good' if k % 2 else 'bad'} {k}", k % 2) for k in range(40)]


def jsonl(path, rows, columns=("text", "label")):
    path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    return path


def csv(path, lines, header="text,label"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def folder(path, rows=ROWS, **splits):
    for split, content in {"train": rows, **splits}.items():
        if content:
            jsonl(path / f"{split}.jsonl", content)
    return path


def write(path, rows):
    texts, labels = zip(*rows, strict=True)
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.table({"text": texts, "label": labels}), path)
    elif path.suffix == ".jsonl":
        jsonl(path, rows)
    else:
        mark = {".csv": ",", ".tsv": "\t"}[path.suffix]
        csv(path, [f"{text}{mark}{label}" for text, label in rows], f"text{mark}label")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl"])
def test_every_type_reads_the_same(tmp_path, suffix):
    write(tmp_path / f"train{suffix}", ROWS)
    write(tmp_path / f"validation{suffix}", ROWS[:4])
    write(tmp_path / f"test{suffix}", ROWS[4:6])
    task = load_task(str(tmp_path))
    assert task.table("train").texts == [(text,) for text, _ in ROWS]
    assert task.table("train").labels.tolist() == [label for _, label in ROWS]
    assert (task.labels, task.cut, task.name) == (("0", "1"), (), tmp_path.name)


def test_csv_quotes_and_tsv_does_not(tmp_path):
    csv(tmp_path / "test.csv", ['"one, ""two""\nthree",0', "plain,1"])
    assert load_task(str(tmp_path)).table("test").texts == [('one, "two"\nthree',), ("plain",)]
    (tmp_path / "test.csv").unlink()
    (tmp_path / "test.tsv").write_text('text\tlabel\n"lone mark\t0\nplain, indeed\t1\n')
    assert load_task(str(tmp_path)).table("test").texts == [('"lone mark',), ("plain, indeed",)]


def test_texts_that_look_like_numbers_and_a_byte_order_mark_are_read_as_they_stand(tmp_path):
    (tmp_path / "test.csv").write_bytes(b"\xef\xbb\xbftext,label\n007,0\n2021-01-01,1\n")
    assert load_task(str(tmp_path)).table("test").texts == [("007",), ("2021-01-01",)]


def test_missing_splits_are_cut_from_training_and_named(tmp_path):
    task = load_task(str(folder(tmp_path, test=ROWS[:6])))
    assert task.cut == ("validation",)
    assert (len(task.table("train")), len(task.table("validation")), len(task.table("test"))) == (36, 4, 6)
    assert np.bincount(task.table("validation").labels).tolist() == [2, 2]
    cut = {int(e.id.removeprefix("validation-")): e.text for e in task.examples("validation")}
    assert all(text == (ROWS[row][0],) for row, text in cut.items())  # ids name rows of the training file
    assert not cut.keys() & set(task.table("train").rows.tolist())


def test_cuts_follow_their_seed(tmp_path):
    path = str(jsonl(tmp_path / "mine.jsonl", ROWS))
    task = load_task(path)
    assert (task.name, task.cut) == ("mine", ("validation", "test"))
    sizes = [len(task.table(split)) for split in ("train", "validation", "test")]
    assert sizes == [32, 4, 4]
    assert task.fingerprint() == load_task(path).fingerprint()
    assert task.fingerprint() != load_task(path, seed=1).fingerprint()


def test_a_rare_class_is_in_every_cut_split_or_refused(tmp_path):
    rare = [(f"text {k}", int(k < 3)) for k in range(50)]
    task = load_task(str(jsonl(tmp_path / "three.jsonl", rare)))
    assert [int(task.table(split).labels.sum()) for split in ("train", "validation", "test")] == [1, 1, 1]
    with pytest.raises(InputError, match="2 rows of label '1': too few to cut validation and test from"):
        load_task(str(jsonl(tmp_path / "two.jsonl", rare[1:])))


def test_a_folder_without_training_data_loads_for_evaluation(tmp_path):
    task = load_task(str(folder(tmp_path, rows=None, validation=[("only good ones", 1), ("and this", 1)])))
    assert (list(task.splits), task.cut) == (["validation"], ())
    assert [e.label for e in task.examples("validation")] == [1, 1]  # a one stays class 1
    with pytest.raises(InputError, match="no training data"):
        task.table("train")


def test_pairs_and_other_column_names(tmp_path):
    rows = [(f"a {k}", f"b {k}", "yes" if k % 2 else "no") for k in range(20)]
    jsonl(tmp_path / "pairs.jsonl", rows, ("sentence1", "sentence2", "label"))
    task = load_task(str(tmp_path / "pairs.jsonl"))
    assert task.labels == ("no", "yes")
    assert any(("a 3", "b 3") in table.texts for table in task.splits.values())
    other = jsonl(tmp_path / "other.jsonl", rows, ("premise", "hypothesis", "gold"))
    again = load_task(str(other), text_column="premise,hypothesis", label_column="gold")
    assert again.fingerprint() == task.fingerprint()
    one = load_task(str(other), text_column="premise", label_column="gold")
    assert len(one.table("test").columns) == 1


def test_label_names_come_from_info_json(tmp_path):
    folder(tmp_path, validation=[("a", 1)], test=[("a", 0)])
    (tmp_path / "info.json").write_text('{"label_names": ["negative", "positive"], "licence": "none"}')
    assert load_task(str(tmp_path)).labels == ("negative", "positive")
    named = tmp_path / "named"
    named.mkdir()
    folder(named, rows=[("a", "up"), ("b", "down")], validation=[("c", "up")], test=[("d", "up")])
    assert load_task(str(named)).labels == ("down", "up")
    (named / "info.json").write_text('{"label_names": ["up", "down"]}')
    assert load_task(str(named)).table("train").labels.tolist() == [0, 1]


def test_numbers_other_than_from_zero_keep_their_order(tmp_path):
    stars = [(f"text {k}", 1 + k % 5) for k in range(50)]
    task = load_task(str(jsonl(tmp_path / "stars.jsonl", stars)))
    assert task.labels == ("1", "2", "3", "4", "5")
    assert task.table("train").labels.min() == 0


BAD_FILES = {
    "no such folder or file": (None, None, "no task, folder or file '.*nothing'"),
    "unknown type": ("x.xlsx", b"...", "no known type; allowed: .parquet, .csv, .tsv, .jsonl"),
    "empty file": ("x.csv", b"", "x.csv is empty"),
    "header only": ("x.csv", b"text,label\n", "x.csv is empty"),
    "no text column": (
        "x.csv",
        b"txt,label\na,1\n",
        "no text column 'text'.*did you mean 'txt'.*allowed: label, txt",
    ),
    "half a pair": (
        "x.csv",
        b"sentence1,label\na,1\n",
        "no text column 'sentence2'.*did you mean 'sentence1'",
    ),
    "no label column": ("x.csv", b"text,labels\na,1\n", "no label column 'label'.*did you mean 'labels'"),
    "label missing": ("x.csv", b"text,label\na,1\nb,\n", "label missing in column 'label', row 1 of .*x.csv"),
    "label name missing": ("x.csv", b"text,label\na,good\nb,\n", "label missing in column 'label', row 1"),
    "label null": ("x.jsonl", b'{"text":"a","label":1}\n{"text":"b"}\n', "label missing .* row 1"),
    "all labels null": ("x.jsonl", b'{"text":"a","label":null}\n', "label missing .* row 0"),
    "one class": ("x.csv", b"text,label\na,1\nb,1\n", "only one class in training \\('1'\\)"),
    "empty text": ("x.csv", b"text,label\na,1\n   ,0\n", "empty text in column 'text', row 1 of .*x.csv"),
    "null text": ("x.jsonl", b'{"text":"a","label":1}\n{"label":0}\n', "empty text in column 'text', row 1"),
    "fractions": ("x.csv", b"text,label\na,0.5\nb,1.0\n", "fractions \\(0.5\\).*regression is not supported"),
    "lists": ("x.jsonl", b'{"text":"a","label":[0,1]}\n', "are lists.*multi-label and token classification"),
    "dates": ("x.csv", b"text,label\na,2021-01-01\n", "labels in column 'label' .* allowed: whole numbers"),
    "latin-1": (
        "x.csv",
        "text,label\nok,1\ncafé,0\n".encode("latin-1"),
        "not UTF-8 at line 3 \\(byte 0xe9\\)",
    ),
    "latin-1 lines": (
        "x.jsonl",
        '{"text":"é","label":1}\n'.encode("latin-1"),
        "x.jsonl is not UTF-8 at line 1",
    ),
    "no parquet": ("x.parquet", b"PAR1 nonsense", "x.parquet cannot be read as parquet"),
    "no json": ("x.jsonl", b'{"text": "a", "label": 1\n', "x.jsonl cannot be read as jsonl"),
    "ragged": ("x.csv", b"text,label\na,b,1\n", "x.csv cannot be read as csv: .*Expected 2 columns, got 3"),
    "texts that are none": (
        "x.jsonl",
        b'{"text":{"a":1},"label":1}\n',
        "text column 'text' .* allowed: strings",
    ),
    "mixed labels": (
        "x.jsonl",
        b'{"text":"a","label":1}\n{"text":"b","label":"x"}\n',
        "from number to string",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_one_line(tmp_path, case):
    name, content, message = BAD_FILES[case]
    path = tmp_path / (name or "nothing")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_task(str(path))
    assert "\n" not in str(error.value)


def test_broken_utf8_inside_parquet_is_refused(tmp_path):
    broken = pa.array([b"caf\xe9", b"ok"], pa.binary()).cast(pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 2, broken.buffers())
    pa.parquet.write_table(pa.table({"text": texts, "label": [0, 1]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet has broken UTF-8 in column 'text'"):
        load_task(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": [("a", 2)]}, "label 2 in row 0 of .*test.jsonl; unseen in training; allowed: 0, 1"),
        ({"test": [("a", -1)]}, "label -1 in row 0 of .*test.jsonl"),
        ({"test": [("a", "good")]}, "are numbers and names; allowed: one kind"),
        (
            {"rows": [(f"t {k}", "ab"[k % 2]) for k in range(9)], "test": [("a", "c")]},
            "label 'c'.*allowed: a, b",
        ),
        ({"rows": None}, "has no split; needed: train, validation or test as .parquet"),
        ({"rows": None, "test": [("a", 10**9)]}, "label 1000000000 of .*test.jsonl; allowed: 0 to 999"),
        ({"rows": None, "test": [("a", -1)]}, "label -1 in row 0 of .*test.jsonl; allowed: 0, 1"),
    ],
)
def test_bad_folders_are_refused(tmp_path, splits, message):
    with pytest.raises(InputError, match=message):
        load_task(str(folder(tmp_path, **splits)))


def test_more_bad_folders(tmp_path):
    folder(tmp_path)
    (tmp_path / "info.json").write_text('{"label_names": ["only", "only"]}')
    with pytest.raises(InputError, match=r"label_names in .*info.json is .*a list of different names"):
        load_task(str(tmp_path))
    (tmp_path / "info.json").write_text("{nope")
    with pytest.raises(InputError, match=r"info\.json is not JSON"):
        load_task(str(tmp_path))
    (tmp_path / "info.json").write_text('{"label_names": ["only"]}')
    with pytest.raises(InputError, match=r"label 1 in row 1 of .*train.jsonl; allowed: 0"):
        load_task(str(tmp_path))
    (tmp_path / "info.json").unlink()
    write(tmp_path / "train.csv", ROWS)
    with pytest.raises(InputError, match=r"has train\.csv and train.jsonl; allowed: one file for each split"):
        load_task(str(tmp_path))
    with pytest.raises(InputError, match="3 text columns \\(a, b, c\\); allowed: 1 or 2"):
        load_task(str(tmp_path / "train.csv"), text_column="a,b,c")


def test_one_text_column_here_and_two_there_is_refused(tmp_path):
    jsonl(tmp_path / "train.jsonl", ROWS)
    jsonl(tmp_path / "test.jsonl", [("a", "b", 1)], ("sentence1", "sentence2", "label"))
    with pytest.raises(InputError, match="different numbers of text columns"):
        load_task(str(tmp_path))


def test_the_nearest_name_is_given():
    with pytest.raises(InputError, match="did you mean 'ag_news'"):
        load_task("agnews")


def hub(monkeypatch, splits, error=None):
    asked = []

    def load_dataset(*where):
        asked.append(where)
        if error:
            raise error
        return splits

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def split(texts, labels, column="sentence"):
    names = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({column: datasets.Value("string"), "label": names})
    return datasets.Dataset.from_dict({column: texts, "label": labels}, features=features)


def test_a_hub_task_leaves_the_unlabelled_test_split_alone(monkeypatch):
    train = split([f"t {k}" for k in range(30)], [k % 2 for k in range(30)])
    splits = {"train": train, "validation": split(["v"], [1]), "test": split(["hidden"], [-1])}
    asked = hub(monkeypatch, splits)
    task = load_task("sst2")
    assert asked == [("nyu-mll/glue", "sst2")]
    assert (task.name, task.labels, task.cut) == ("sst2", ("negative", "positive"), ("test",))
    assert (len(task.table("train")), len(task.table("test"))) == (27, 3)
    assert task.table("validation").texts == [("v",)]


def test_hub_rows_without_label_or_text_are_left_out_under_their_row_numbers(monkeypatch):
    train = split([f"t {k}" for k in range(30)], [k % 2 for k in range(30)], "text")
    test = split(["a", " ", "c", "d"], [0, 1, -1, 1], "text")
    hub(monkeypatch, {"train": train, "test": test})
    task = load_task("imdb")
    assert [e.id for e in task.examples("test")] == ["test-0", "test-3"]
    assert task.cut == ("validation",)


@pytest.mark.parametrize("error", [ConnectionError("no\nroute"), ValueError("no such config")])
def test_no_network_is_one_line(monkeypatch, error):
    hub(monkeypatch, None, error)
    with pytest.raises(
        InputError, match=r"'sst2' could not be loaded from the hub .* without a network: made"
    ) as e:
        load_task("sst2")
    assert "\n" not in str(e.value)


def test_mnli_is_validated_on_the_matched_split():
    from hardtack.tasks.text import HUB

    assert HUB["mnli"] == Hub(
        "nyu-mll/glue", "mnli", ("premise", "hypothesis"), validation="validation_matched"
    )


def test_an_encoder_gives_what_the_forward_accepts():
    tokenizer, pair = toy_tokenizer(), [("good film", "bad plot"), ("the", "a story")]
    bert, gpt2 = Encoder.of(tokenizer, toy_bert()), Encoder.of(tokenizer, toy_gpt2())
    assert set(bert(pair)[0]) >= {"input_ids", "attention_mask"}
    assert set(gpt2(pair)[0]) <= {"input_ids", "attention_mask", "token_type_ids"}
    assert [len(row["input_ids"]) for row in bert(pair)] == [7, 6]  # [CLS] a [SEP] b [SEP]
    assert bert([]) == []
    assert bert.pad_id == tokenizer.pad_token_id


def test_one_tokenizer_call_encodes_a_whole_split():
    calls = []

    class Counting:
        pad_token_id, eos_token_id, model_max_length = None, 5, 10**30

        def __call__(self, *columns, **settings):
            calls.append((columns, settings["max_length"]))
            return {"input_ids": [[1]] * len(columns[0]), "surprise": [[1]] * len(columns[0])}

    def forward(input_ids, labels=None):
        raise AssertionError("the encoder never calls the model")

    config = SimpleNamespace(max_position_embeddings=64)
    model = SimpleNamespace(forward=forward, config=config, named_modules=lambda: [])
    encoder = Encoder.of(Counting(), model, 128)
    assert encoder([("a",), ("b",), ("c",)]) == [{"input_ids": [1]}] * 3  # what the forward lacks is dropped
    assert calls == [((["a", "b", "c"],), 64)]  # no longer than the model has positions for
    assert encoder.pad_id == 5
    with pytest.raises(InputError, match="takes no input_ids"):
        Encoder.of(Counting(), SimpleNamespace(forward=lambda pixels: pixels, config=None))
    with pytest.raises(InputError, match="max_length 2; allowed: 3 or more"):
        Encoder.of(Counting(), model, 2)
