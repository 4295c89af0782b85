"""The models that an attack asks beside its victim: how alike two texts are, and which words fit a place."""

import heapq
import inspect
import json
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import xxhash
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from hardtack.errors import InputError
from hardtack.evaluation.attacks.protocol import Fill, Filled, Similar, Texts
from hardtack.evaluation.resources import embedded_model
from hardtack.evaluation.sheaves import Halving, Row, Sheaf, padded, plan
from hardtack.evaluation.victim import device_of, evaluating

Asked = TypeVar("Asked", bound=Hashable)
Answer = TypeVar("Answer")

_BUDGET, _PRICE = 1024, 32  # tokens a batch and tokens a batch's start costs; as for a victim on a CPU
_REMEMBERED = 2**15  # answers each judge keeps
_INPUTS = frozenset(("input_ids", "attention_mask", "token_type_ids"))  # what a model may be given


class SentenceEncoder:
    """Says how alike two texts are: the cosine of their embeddings by a local sentence encoder.

    A text's embedding is the mean of its tokens' last hidden states, or that of the first token where the
    encoder's folder says so (`1_Pooling/config.json`, as sentence-transformers writes it). Embeddings are
    remembered by text. Cosines are rounded to 1e-4, so that they hardly depend on batches.

    Args:
        folder: of a saved transformers encoder; None takes the packaged all-MiniLM-L6-v2 (extra `demo`).
    """

    def __init__(self, folder: str | Path | None = None):
        place = Path(embedded_model() if folder is None else folder)
        self.digest = folder_digest(place)
        self.first_token = _pooled_by_first_token(place)
        self.model, self._reader = _opened(AutoModel, place, "sentence encoder")
        self._passes = _Passes(self.model, self._reader.pad)
        self._known: _Remembered[Texts, Tensor] = _Remembered()

    def similar(self, asks: Sequence[Similar]) -> list[Tensor]:
        """Return the cosines of each ask's candidates with its original, float64 [n], rounded to 1e-4."""
        texts = [text for ask in asks for text in (ask.original, *ask.candidates)]
        unit = self._known.of(texts, self._embed)
        answers = []
        for ask in asks:
            if not ask.candidates:
                answers.append(torch.empty(0, dtype=torch.float64))
                continue
            candidates = torch.stack([unit[text] for text in ask.candidates]).double()
            answers.append((candidates @ unit[ask.original].double()).round(decimals=4))
        return answers

    def _embed(self, texts: Sequence[Texts]) -> list[Tensor]:
        rows = [self._reader.row(" ".join(text)) for text in texts]
        return self._passes(rows, self._embeddings)

    def _embeddings(self, sheaf: Sheaf, inputs: dict[str, Tensor]) -> Tensor:
        hidden = self.model(**inputs).last_hidden_state.float()  # [b, width, hidden]
        if self.first_token:
            pooled = hidden[:, 0]
        else:
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
        return nn.functional.normalize(pooled, dim=1).cpu()


class MaskedFiller:
    """Says which words a masked language model would read in a word's place.

    Only whole words with a letter or digit are answered, as the model's vocabulary spells them. With a mask
    in the word's place these are single entries of the vocabulary. With the word left standing, a word of
    several pieces is replaced piece by piece: a piece that starts a word at the first place, pieces that
    continue one at the others, the combinations with the largest sum of log probabilities. Of a text that is
    longer than the model can read, the part around the word is read.

    Args:
        folder: of a saved transformers masked language model with its tokenizer.
    """

    def __init__(self, folder: str | Path):
        place = Path(folder)
        self.digest = folder_digest(place)
        self.model, self._reader = _opened(AutoModelForMaskedLM, place, "masked language model")
        tokenizer = self._reader.tokenizer
        if tokenizer.mask_token_id is None:
            raise InputError(f"masked language model {place} has no mask token; BERT and RoBERTa have one")
        self._spelt, self._starts, self._continues = _vocabulary(tokenizer)
        self._passes = _Passes(self.model, self._reader.pad)
        self._known: _Remembered[Fill, Filled] = _Remembered()

    def fill(self, asks: Sequence[Fill]) -> list[Filled]:
        """Return the words that fit each ask's place, best first, with log probabilities rounded to 1e-4."""
        for ask in asks:
            if not (0 <= ask.start < ask.end <= len(ask.text[ask.column])) or ask.top < 1:
                raise TypeError(f"no word to fill in: {ask!r}")
        known = self._known.of(asks, self._fill)
        return [known[ask] for ask in asks]

    def _fill(self, asks: Sequence[Fill]) -> list[Filled]:
        rows, places = zip(*(self._reader.around(ask) for ask in asks), strict=True)

        def read(sheaf: Sheaf, inputs: dict[str, Tensor]) -> list[Filled]:
            logits = self.model(**inputs).logits  # [b, width, vocabulary]
            return [
                self._words(row[places[i]].float().log_softmax(dim=-1).cpu(), asks[i].top)
                for i, row in zip(sheaf.positions.tolist(), logits, strict=True)
            ]

        return self._passes(rows, read)

    def _words(self, chances: Tensor, top: int) -> Filled:
        """Return the best words of log probabilities [pieces, vocabulary]."""
        if not len(chances):
            return []
        options: list[list[tuple[float, int]]] = []  # a place: (log probability, token), best first
        for place, row in enumerate(chances[:, : len(self._spelt)]):
            allowed = self._starts if place == 0 else self._continues
            values, tokens = row.masked_fill(~allowed, -torch.inf).topk(min(top + 8, int(allowed.sum())))
            rounded = values.double().round(decimals=4).tolist()
            options.append(sorted(zip(rounded, tokens.tolist(), strict=True), key=lambda o: (-o[0], o[1])))
        found: dict[str, float] = {}
        for score, choice in _best_sums(options):
            word = "".join(self._spelt[options[place][k][1]] for place, k in enumerate(choice))
            found.setdefault(word, round(score, 4))
            if len(found) == top:
                break
        return list(found.items())


def folder_digest(folder: Path) -> str:
    """Return a digest of a model folder's weights, which names the model in a result row."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(
            f"model folder {folder} has no .safetensors file; a saved transformers model is needed"
        )
    digest = xxhash.xxh3_128()
    for file in weights:
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


class _Reader:
    """Turns texts into the token lists of one judge's model."""

    def __init__(self, tokenizer: Any, keys: frozenset[str], length: int):
        self.tokenizer, self.keys, self.length = tokenizer, keys, length
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def row(self, *texts: str) -> Row:
        return self._kept(self._encoded(*texts))

    def around(self, ask: Fill) -> tuple[Row, list[int]]:
        """Return the tokens of the text around an ask's place, and which of them stand in that place."""
        column = ask.text[ask.column]
        middle = self.tokenizer.mask_token if ask.masked else column[ask.start : ask.end]
        start, end = ask.start, ask.start + len(middle)
        text = column[:start] + middle + column[ask.end :]
        columns = [text]
        if ask.pair and len(ask.text) == 2:
            columns = [ask.text[0], ask.text[1]]
            columns[ask.column] = text
        own = columns.index(text) if len(columns) == 1 else ask.column
        encoded = self._encoded(*columns, truncation=False)
        if len(encoded["input_ids"]) > self.length:
            room = self.length - self.tokenizer.num_special_tokens_to_add(pair=len(columns) == 2)
            start, end, columns[own] = self._window(text, start, end, room // len(columns))
            encoded = self._encoded(*columns, truncation="longest_first")
        mask = self.tokenizer.mask_token_id if ask.masked else None
        tokens = zip(encoded["input_ids"], encoded["offset_mapping"], encoded.sequence_ids(0), strict=True)
        places = [
            i
            for i, (token, (first, last), which) in enumerate(tokens)
            if which == own and first < end and last > start and mask in (None, token)
        ]
        return self._kept(encoded), places

    def _window(self, text: str, start: int, end: int, room: int) -> tuple[int, int, str]:
        """Return the part of a text around [start, end) that has `room` tokens, and the place in it."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = encoded["offset_mapping"]
        if len(spans) <= room:
            return start, end, text
        middle = next((i for i, (_, last) in enumerate(spans) if last > start), len(spans) - 1)
        first = min(max(0, middle - room // 2), len(spans) - room)
        left, right = spans[first][0], max(end, spans[first + room - 1][1])
        return start - left, end - left, text[left:right]

    def _encoded(self, *texts: str, truncation: bool | str = True) -> Any:
        more = {} if truncation is False else {"max_length": self.length}
        return self.tokenizer(
            *texts, truncation=truncation, padding=False, return_offsets_mapping=True, verbose=False, **more
        )

    def _kept(self, encoded: Any) -> Row:
        kept = {key: values for key, values in encoded.items() if key in self.keys}
        return kept if kept["input_ids"] else {key: [int(key == "attention_mask")] for key in kept}


class _Passes:
    """Runs token lists through a model in batches of similar length."""

    def __init__(self, model: nn.Module, pad: int):
        self.model, self.pad, self.halving = model, pad, Halving()

    def __call__(self, rows: Sequence[Row], read: Callable[[Sheaf, dict[str, Tensor]], Any]) -> list[Any]:
        """Return what `read` makes of each row; it is called with batches and their inputs."""
        answers: list[Any] = [None] * len(rows)
        device = device_of(self.model)

        def forward(sheaf: Sheaf) -> None:
            given = read(sheaf, padded(sheaf, self.pad, device))
            for position, answer in zip(sheaf.positions.tolist(), given, strict=True):
                answers[position] = answer

        with evaluating(self.model):
            for sheaf in plan(rows, budget=_BUDGET, price=_PRICE):
                self.halving(forward, sheaf)
        return answers


class _Remembered(Generic[Asked, Answer]):
    """Answers by question; when there are too many, the oldest are forgotten."""

    def __init__(self) -> None:
        self._kept: dict[Asked, Answer] = {}

    def of(
        self, asked: Sequence[Asked], answer: Callable[[Sequence[Asked]], Sequence[Answer]]
    ) -> dict[Asked, Answer]:
        """Return the answers to all that is asked; `answer` is called with what is not remembered."""
        distinct = list(dict.fromkeys(asked))
        new = [one for one in distinct if one not in self._kept]
        if new:
            self._kept |= dict(zip(new, answer(new), strict=True))
        found = {one: self._kept[one] for one in distinct}
        for one in list(islice(self._kept, max(0, len(self._kept) - _REMEMBERED))):
            del self._kept[one]
        return found


def _opened(kind: Any, folder: Path, what: str) -> tuple[nn.Module, _Reader]:
    """Load a judge's model and tokenizer from a folder, refusing in one line what lacks weights."""
    try:
        model, info = kind.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, use_safetensors=True,
            trust_remote_code=False, local_files_only=True,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever the libraries raise at a damaged folder, the folder is the cause
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{what} {folder} cannot be loaded: {reason}") from None
    lost = sorted(key for key in info["missing_keys"] if "pooler" not in key)  # which no judge reads
    if lost:
        raise InputError(f"{folder} is no {what}: it lacks {lost[0]}, {len(lost)} tensors in all")
    if not tokenizer.is_fast or len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise InputError(f"{what} {folder} has no tokenizer.json that can be read; it is needed")
    lengths = [
        getattr(model.config, "max_position_embeddings", None),
        tokenizer.model_max_length,
        _json(folder / "sentence_bert_config.json").get("max_seq_length"),
    ]
    # RoBERTa counts positions from pad_token_id + 1; two fewer fit all families.
    length = min(int(length) for length in lengths if length) - 2
    keys = frozenset(inspect.signature(model.forward).parameters) & _INPUTS
    return model.eval(), _Reader(tokenizer, keys, length)


def _pooled_by_first_token(folder: Path) -> bool:
    path = folder / "1_Pooling" / "config.json"
    modes = [name for name, on in _json(path).items() if name.startswith("pooling_mode_") and on is True]
    allowed = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    if len(modes) > 1 or any(mode not in allowed for mode in modes):
        raise InputError(f"{path} pools by {', '.join(modes)}; allowed: {' or '.join(allowed)}")
    return allowed[modes[0]] if modes else False


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise InputError(f"{path} is not JSON") from None
    return found if isinstance(found, dict) else {}


def _vocabulary(tokenizer: Any) -> tuple[list[str], Tensor, Tensor]:
    """Return how every token is spelt, and which of them, [vocabulary], start and continue a word."""
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_tokens)
    prefix = getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None)
    spelt, starts, continues = [], [], []
    for piece in pieces:
        if prefix:  # WordPiece marks what continues a word, the other kinds what starts one
            word, first = piece.removeprefix(prefix), not piece.startswith(prefix)
        else:
            word, first = (
                tokenizer.convert_tokens_to_string([piece]).strip(),
                piece[:1] in ("\u0120", "\u2581"),
            )
        whole = piece not in special and not any(c.isspace() or c == "\ufffd" for c in word)
        spelt.append(word)
        starts.append(first and whole and any(c.isalnum() for c in word))
        continues.append(not first and whole and word.isalnum())
    return spelt, torch.tensor(starts), torch.tensor(continues)


def _best_sums(options: Sequence[Sequence[tuple[float, int]]]) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Yield (sum, one number a list) over lists of values in descending order, the largest sums first."""
    if not all(options):
        return
    start = tuple(0 for _ in options)
    heap = [(-math.fsum(values[0][0] for values in options), start)]
    seen = {start}
    while heap:
        cost, choice = heapq.heappop(heap)
        yield -cost, choice
        for place, values in enumerate(options):
            k = choice[place] + 1
            following = (*choice[:place], k, *choice[place + 1 :])
            if k < len(values) and following not in seen:
                seen.add(following)
                heapq.heappush(heap, (cost + values[k - 1][0] - values[k][0], following))
