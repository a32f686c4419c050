"""What frozen features reach, by the size of the images."""

from fgjax.config import Row, Study
from fgjax.methods.probe.heads import HEADS

STUDIES = {
    "run": Study("The run itself", "the probe as the config has it", (Row("probe", {}),)),
    "sizes": Study(
        "Size of the images",
        "not in a paper",
        tuple(Row(f"{size} px", {"data.image_size": size}) for size in (128, 160, 224)),
        also=("mean_class_accuracy",),
    ),
    "heads": Study(
        "Heads on the same features",
        "not in a paper",
        tuple(Row(head, {"method.head": head}) for head in HEADS),
        also=("calibration_error", "unknown_auroc", "unknown_fpr95", "accepted"),
    ),
    "few_shot": Study(
        "Images of each class",
        "not in a paper",
        tuple(
            Row(f"{head}, {shots}", {"method.head": head, "data.shots": shots})
            for head in ("linear", "cosine", "knn")
            for shots in (1, 2, 5, 10, 20)
        ),
        also=("mean_class_accuracy",),
    ),
    "unseen": Study(
        "Retrieval of unseen classes",
        "frozen features; the half of the classes that HDCL searches",
        tuple(
            Row(f"{size} px", {"data.image_size": size, "data.zero_shot": True})
            for size in (128, 224)
        ),
        metric="recall@1",
        also=("map@r",),
    ),
}
