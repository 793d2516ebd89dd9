"""The only room that loads torch: models, data, training, watermark, exact evaluation, replay."""
