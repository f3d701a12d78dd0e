"""Trains the small detector and the small U-Net on composed scenes, in plain torch.

    python tests/benchmarks/digit_scenes.py detection
    python tests/benchmarks/digit_scenes.py segmentation --size 64

Prints the test set's mAP and mAP50, or its mean IoU and pixel accuracy, and the processor's time.
"""

import argparse
import contextlib
import io
import time

import numpy as np
import torch
from micronet_zoo.boxes import decode, detection_loss
from torch.utils.data import DataLoader

from micronet.registry import create


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["detection", "segmentation"])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    detects = arguments.task == "detection"
    data = create(
        "dataset",
        "digit_scenes",
        targets=arguments.task,
        size=arguments.size,
        train=arguments.train,
    )
    train, test = data.load()
    name = "yolo_small" if detects else "unet_small"
    model = create("model", name, num_classes=11).build()
    start = time.process_time()
    fit(model, train, detection_loss if detects else torch.nn.functional.cross_entropy, arguments)
    trained = time.process_time()
    metrics = mean_precision(model, test) if detects else mean_iou(model, test)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{name}, {millions:.3f} million parameters: {metrics}")
    print(
        f"{trained - start:.0f} s for training, {time.process_time() - trained:.0f} s for the test"
    )


def fit(model, data, loss_function, arguments) -> None:
    loader = DataLoader(
        data,
        arguments.batch,
        shuffle=True,
        drop_last=True,
        collate_fn=lambda batch: zip(*batch, strict=True),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        arguments.lr,
        epochs=arguments.epochs,
        steps_per_epoch=len(loader),
        pct_start=0.1,
    )
    model.train()
    for epoch in range(arguments.epochs):
        total, start = 0.0, time.process_time()
        for images, targets in loader:
            stacked = targets if isinstance(targets[0], dict) else torch.stack(targets)
            loss = loss_function(model(torch.stack(images)), stacked)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.process_time() - start
        print(f"epoch {epoch + 1}: loss {total / len(loader):.4f}, {seconds:.0f} s", flush=True)


@torch.no_grad()
def mean_iou(model, data) -> str:
    model.eval()
    counts = np.zeros((11, 11), np.int64)
    for images, masks in DataLoader(data, 50):
        predicted = model(images).argmax(1)
        counts += np.bincount((masks * 11 + predicted).flatten(), minlength=121).reshape(11, 11)
    hit = np.diag(counts)
    ious = hit / (counts.sum(0) + counts.sum(1) - hit)
    return f"mIoU {ious.mean():.4f}, pixels {hit.sum() / counts.sum():.4f}"


@torch.no_grad()
def mean_precision(model, data) -> str:
    from faster_coco_eval import COCO, COCOeval_faster

    model.eval()
    annotations, results = [], []
    for start in range(0, len(data), 50):
        batch = [data[index] for index in range(start, min(start + 50, len(data)))]
        found = decode(model(torch.stack([image for image, _ in batch])), score=0.001)
        for index, ((_, target), detected) in enumerate(zip(batch, found, strict=True), start):
            for box, label in zip(widths(target["boxes"]), target["labels"].tolist(), strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index,
                        "category_id": label,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
            results += [
                {"image_id": index, "category_id": label, "bbox": box, "score": score}
                for box, label, score in zip(
                    widths(detected["boxes"]),
                    detected["labels"].tolist(),
                    detected["scores"].tolist(),
                    strict=True,
                )
            ]
    truth = {
        "images": [{"id": index} for index in range(len(data))],
        "annotations": annotations,
        "categories": [{"id": label, "name": str(label)} for label in range(11)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(truth)
        evaluator = COCOeval_faster(coco, coco.loadRes(results), "bbox")
        evaluator.run()
    return f"mAP {evaluator.stats[0]:.4f}, mAP50 {evaluator.stats[1]:.4f}"


def widths(boxes):
    """x1, y1, x2, y2 as x, y, width, height."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()


if __name__ == "__main__":
    main()
