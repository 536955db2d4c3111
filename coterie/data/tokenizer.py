"""Tokenizers of the package `tokenizers`: the file tokenizer.json, which is data alone, and the roles of its tokens.

Python's tokenizers, pickles and code that comes with a tokenizer are never used. The package is imported only here.

Legend: N texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, reason
from coterie.core.packages import import_package
from coterie.data.origins import note_files
from coterie.models.libraries import HUGGINGFACE

FILE, ROLES = "tokenizer.json", ("special_tokens_map.json", "tokenizer_config.json")
"""The tokenizer, and the files beside it that say which tokens fill up and end a text; the last one counts."""
KEY = "tokenizer"


@dataclass(frozen=True)
class Tokenizer:
    """Makes tokens of texts, and texts of tokens.

    Attributes:
        content: of tokenizer.json.
        pad: the token that fills up short texts. Where the files name none, it is the end.
        end: the token that ends a text; None where the files name none.
    """

    content: str
    pad: int
    end: int | None

    @cached_property
    def _package_tokenizer(self) -> Any:
        """The package's tokenizer. What its file says about lengths is left out, since the caller decides these."""
        made = _parse(self.content, FILE)
        made.no_padding()
        made.no_truncation()
        return made

    @property
    def size(self) -> int:
        """How many tokens there are: one more than the largest."""
        return 1 + max(self._package_tokenizer.get_vocab(with_added_tokens=True).values(), default=0)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of N texts, without any that begin or end a text."""
        return [found.ids for found in self._package_tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def encode_whole(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], int]:
        """Return the tokens of N texts with those that begin and end a text, and how many texts were cut.

        Args:
            texts: the texts.
            max_length: the most tokens of one text. A longer text loses its last tokens, but not those that end it.
        """
        made = _parse(self.content, FILE)
        made.no_padding()
        if max_length <= made.num_special_tokens_to_add(is_pair=False):
            raise Mistake(key="max_length", value=max_length, allowed="larger than the number of tokens around a text")
        made.enable_truncation(max_length)
        found = made.encode_batch(list(texts), add_special_tokens=True)
        return [each.ids for each in found], sum(bool(each.overflowing) for each in found)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without those that begin, end or fill up a text."""
        text: str = self._package_tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text


def read_tokenizer(where: str | Path) -> Tokenizer:
    """Read the tokenizer in a folder, in a file, or on the Hub.

    Args:
        where: a folder that `save_pretrained` wrote, a tokenizer.json, or "huggingface:NAME" for a name on the Hub.

    Raises:
        Mistake: the package is not installed, or there is no such tokenizer that can be used.
    """
    name, files = str(where), [FILE, *ROLES]
    if name.startswith(HUGGINGFACE) and not Path(name.removeprefix(HUGGINGFACE)).is_dir():
        found = [_fetch(name, file) for file in files]
    else:
        path = Path(name.removeprefix(HUGGINGFACE))
        if not path.exists():
            raise Mistake(
                f'there is no such folder or file; a name on the Hub begins with "{HUGGINGFACE}"', key=KEY, value=name
            )
        found = [path / file for file in files] if path.is_dir() else [path, *(path.parent / file for file in ROLES)]
    present = [file for file in found if file is not None and file.is_file()]
    if found[0] not in present:
        sentence = f"it has no {FILE}; save it with a fast tokenizer's save_pretrained, since no other kind is read"
        raise Mistake(sentence, key=KEY, value=name)
    note_files(present)
    try:
        content = present[0].read_text(encoding="utf-8")
        roles: dict[str, Any] = {}
        for file in present[1:]:
            roles |= json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise Mistake(f"it cannot be read ({reason(error)})", key=KEY, value=name) from error
    return _with_roles(content, roles, name)


def _with_roles(content: str, roles: dict[str, Any], name: str) -> Tokenizer:
    """Return a tokenizer with the tokens that fill up and end a text, as its files say.

    Raises:
        Mistake: they name neither, or a token that there is not.
    """
    made = _parse(content, name)
    end = _number(made, roles.get("eos_token") or roles.get("sep_token"), name)
    pad = _number(made, roles.get("pad_token") or (made.padding or {}).get("pad_token"), name)
    pad = end if pad is None else pad
    if pad is None:
        raise Mistake(
            f"it names no pad_token and no eos_token; name them in {ROLES[-1]} beside it", key=KEY, value=name
        )
    return Tokenizer(content, pad, end)


def _number(made: Any, token: Any, name: str) -> int | None:
    """Return the number of a special token, which is a text or a group of fields with its content."""
    text = token.get("content") if isinstance(token, dict) else token
    if text is None:
        return None
    number: int | None = made.token_to_id(str(text))
    if number is None:
        raise Mistake(f"{ROLES[-1]} names the token {str(text)!r}, which {FILE} does not have", key=KEY, value=name)
    return number


def _parse(content: str, name: str) -> Any:
    """Return the package's tokenizer of a file's content."""
    package = import_package("tokenizers", KEY, "huggingface", name)
    try:
        return package.Tokenizer.from_str(content)
    except Exception as error:  # the package raises nothing more special
        raise Mistake(f"it is not a {FILE} that this version reads ({reason(error)})", key=KEY, value=name) from error


def _fetch(name: str, file: str) -> Path | None:
    """Return the path of a file on the Hub, fetched into the package's cache; None where there is none of that name."""
    hub = import_package("huggingface_hub", KEY, "huggingface", name)
    try:
        return Path(hub.hf_hub_download(name.removeprefix(HUGGINGFACE), file))
    except hub.errors.EntryNotFoundError as error:
        if isinstance(error, hub.errors.LocalEntryNotFoundError):  # no network
            raise Mistake(f"it cannot be fetched ({reason(error)})", key=KEY, value=name) from error
        return None
    except Exception as error:  # the network's, of many kinds
        raise Mistake(f"it cannot be fetched ({reason(error)})", key=KEY, value=name) from error
