"""The datasets this task names, and where their owners publish them.

Only one can be fetched. The official files of the others have another format than the CSV that this task reads (a header, a
text column and a label column), or are on a server for whose files no checksum can be recorded.
"""

from __future__ import annotations

from ocd_bench import Dataset, Source


def _counterfactual(part: str, name: str, digest: str, size: int) -> Source:
    """A file of the official English split at a fixed commit, under the name this task looks for."""
    return Source(f"{COUNTERFACTUAL}/EN_{part}.tsv", digest, size, f"{name}.tsv")


COUNTERFACTUAL = (
    "https://raw.githubusercontent.com/amazon-research/amazon-multilingual-counterfactual-dataset/"
    "3cc7de48bd8a1e8814dabe18697098f685e00d9e/data"
)

DATASETS = (
    Dataset(
        "requests",
        "short messages to a shop, 5 intents, written for this project",
        embedded=True,
        licence="MIT",
        seen_in_tuning=True,
    ),
    Dataset(
        "sst5",
        "SST-5, 5 classes; train, dev and test as CSV with columns text and label",
        folder="text/sst5",
        licence="none stated",
        citation="Socher et al., Recursive deep models for semantic compositionality over a sentiment treebank, EMNLP 2013",
        homepage="https://nlp.stanford.edu/sentiment/",
        seen_in_tuning=True,
    ),
    Dataset(
        "emotion",
        "tweets, 6 emotions; train, validation and test as CSV",
        folder="text/emotion",
        licence="education and research only",
        citation="Saravia, Liu, Huang, Wu and Chen, CARER, EMNLP 2018",
        homepage="https://github.com/dair-ai/emotion_dataset",
        seen_in_tuning=True,
    ),
    Dataset(
        "ag_news",
        "news, 4 classes; train and test as CSV",
        folder="text/ag_news",
        licence="non-commercial",
        citation="Zhang, Zhao and LeCun, Character-level convolutional networks for text classification, NeurIPS 2015",
        homepage="https://github.com/mhjabreel/CharCnn_Keras/tree/master/data/ag_news_csv",
        seen_in_tuning=True,
    ),
    Dataset(
        "amazon_counterfactual_en",
        "review sentences, counterfactual or not (Matthews correlation)",
        folder="text/amazon_counterfactual_en",
        sources=(
            _counterfactual("train", "train", "fa1d3db89f133725011f022e1e0bb9ba147b0e9b8b38e15f832ad6192070f7d1", 444664),
            _counterfactual("valid", "validation", "47c981cd724394a45c091998ba9fb553ea5c9159aae228b5009ac32a1e51d6be", 37707),
            _counterfactual("test", "test", "ca0bbbc8d32e795526b21eba31c6b400e81c192f4d756bafa95c7b71375893d5", 73457),
        ),
        licence="CC BY-NC 4.0",
        citation="O'Neill et al., I wish I would have loved this one, but I didn't, EMNLP 2021",
        homepage="https://github.com/amazon-research/amazon-multilingual-counterfactual-dataset",
        seen_in_tuning=True,
    ),
)
"""The default first. Any other folder of such files works under its own name."""
