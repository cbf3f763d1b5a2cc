"""The datasets of this task, the addresses where their owners publish them, and the SHA-256 of each file."""

from __future__ import annotations

from ocd_bench import Dataset, Source

DATASETS = (
    Dataset(
        "diabetes",
        "disease progression after a year, 442 rows, 10 features (scikit-learn)",
        embedded=True,
        default=True,
        licence="none stated",
        citation="Efron, Hastie, Johnstone and Tibshirani, Least angle regression, Annals of Statistics 32, 2004",
        homepage="https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html",
        seen_in_tuning=True,
    ),
    Dataset(
        "breast-cancer",
        "benign or malignant, 569 rows, 30 features (scikit-learn)",
        embedded=True,
        default=True,
        licence="CC BY 4.0",
        citation="Wolberg, Mangasarian, Street and Street, Breast Cancer Wisconsin (Diagnostic), UCI 1993",
        homepage="https://archive.ics.uci.edu/dataset/17",
    ),
    Dataset(
        "wine",
        "three cultivars, 178 rows, 13 features (scikit-learn)",
        embedded=True,
        licence="CC BY 4.0",
        citation="Aeberhard and Forina, Wine, UCI 1992",
        homepage="https://archive.ics.uci.edu/dataset/109",
    ),
    Dataset(
        "california_housing",
        "median house value in 100,000 dollars, 20,640 rows, 8 features (StatLib)",
        # The copy scikit-learn downloads, under the SHA-256 it records: CaliforniaHousing/cal_housing.data, no header line.
        sources=(
            Source(
                "https://ndownloader.figshare.com/files/5976036",
                "aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681",
                441963,
                "cal_housing.tgz",
            ),
        ),
        licence="CC BY 4.0, as stated by the deposit",
        citation="Pace and Barry, Sparse spatial autoregressions, Statistics and Probability Letters 33, 1997",
        homepage="https://doi.org/10.6084/m9.figshare.3829992.v2",
        seen_in_tuning=True,
    ),
    Dataset(
        "letor_mq2008",
        "relevance of documents, 15,211 rows, 46 features, official folds (LETOR 4.0)",
        licence="research",
        citation="Qin and Liu, Introducing LETOR 4.0 Datasets, arXiv 1306.2597",
        homepage="https://www.microsoft.com/en-us/research/project/letor-learning-rank-information-retrieval/",
        seen_in_tuning=True,
    ),
    Dataset(
        "mslr_web10k",
        "relevance of documents, 1.2 million rows, 136 features, official folds (Microsoft)",
        licence="Microsoft Research licence agreement",
        citation="Qin and Liu, Microsoft Learning to Rank Datasets, 2010",
        homepage="https://www.microsoft.com/en-us/research/project/mslr/",
    ),
    Dataset(
        "gas_sensor_drift",
        "six gases, 128 features of 16 sensors that drift; trained on batches 1 and 2, tested on 3, 4 and 5 (3,633 rows)",
        licence="CC BY 4.0",
        citation="Vergara et al., Chemical gas sensor drift compensation using classifier ensembles, Sensors and Actuators B",
        homepage="https://archive.ics.uci.edu/dataset/270",
        seen_in_tuning=True,
    ),
    Dataset(
        "bike_sharing",
        "log(1 + rented bikes) by the hour, 17,379 rows, 11 features; trained on 2011, tested on 2012",
        licence="CC BY 4.0",
        citation="Fanaee-T and Gama, Event labeling combining ensemble detectors and background knowledge, Progress in AI 2013",
        homepage="https://archive.ics.uci.edu/dataset/275",
    ),
)
"""The first two are measured by default: one of numbers, one of classes. Any other folder or file of a known form works under
its own name."""
