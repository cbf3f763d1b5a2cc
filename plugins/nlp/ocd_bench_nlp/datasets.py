"""The datasets this task names, and where their owners publish them.

None has a file to fetch: their owners' files are of other formats than the CSV this task reads (a header, a text column and a
label column), or lie behind a form or a drive that no checksum can be recorded for.
"""

from __future__ import annotations

from ocd_bench import Dataset

DATASETS = (
    Dataset(
        "requests",
        "short messages to a shop, 5 intents, written for this project",
        embedded=True,
        licence="MIT",
    ),
    Dataset(
        "sst5",
        "SST-5, 5 classes; train, dev and test as CSV with columns text and label",
        folder="text/sst5",
        licence="none stated",
        citation="Socher et al., Recursive deep models for semantic compositionality over a sentiment treebank, EMNLP 2013",
        homepage="https://nlp.stanford.edu/sentiment/",
    ),
    Dataset(
        "emotion",
        "tweets, 6 emotions; train, validation and test as CSV",
        folder="text/emotion",
        licence="education and research only",
        citation="Saravia, Liu, Huang, Wu and Chen, CARER, EMNLP 2018",
        homepage="https://github.com/dair-ai/emotion_dataset",
    ),
    Dataset(
        "ag_news",
        "news, 4 classes; train and test as CSV",
        folder="text/ag_news",
        licence="non-commercial",
        citation="Zhang, Zhao and LeCun, Character-level convolutional networks for text classification, NeurIPS 2015",
        homepage="https://github.com/mhjabreel/CharCnn_Keras/tree/master/data/ag_news_csv",
    ),
    Dataset(
        "amazon_counterfactual_en",
        "review sentences, counterfactual or not (Matthews correlation); train, validation and test as CSV",
        folder="text/amazon_counterfactual_en",
        licence="CC BY-NC 4.0",
        citation="O'Neill et al., I wish I would have loved this one, but I didn't, EMNLP 2021",
        homepage="https://github.com/amazon-research/amazon-multilingual-counterfactual-dataset",
    ),
)
"""The default first. Any other folder of such files works under its own name."""
