"""The networks of an nnU-Net v2 results folder as ONNX graphs, by nnU-Net itself.

usage: export_nnunet.py RESULTS_DIR OUTPUT_DIR CHECKPOINT FOLD [FOLD ...]

RESULTS_DIR   holds plans.json, dataset.json and fold_FOLD/CHECKPOINT
OUTPUT_DIR    gets fold_FOLD.onnx: float32 `image` and `scores`, of the patch that the network was trained on

Prints one JSON object with what a package needs to know beside the graphs.
"""
import contextlib
import json
import os
import sys
from pathlib import Path

results, output, checkpoint, *folds = sys.argv[1:]
for name in ('nnUNet_raw', 'nnUNet_preprocessed', 'nnUNet_results'):
    os.environ.setdefault(name, output)  # nnU-Net complains where they are not set
answer = sys.stdout
with contextlib.redirect_stdout(sys.stderr):
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    files = []
    for fold in folds:
        predictor = nnUNetPredictor(device=torch.device('cpu'), perform_everything_on_device=False, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(results, (fold,), checkpoint)
        network = predictor.network
        network.load_state_dict(predictor.list_of_parameters[0])
        network.eval()
        if hasattr(network, 'decoder'):
            network.decoder.deep_supervision = False
        configuration, labels = predictor.configuration_manager, predictor.label_manager
        channels = determine_num_input_channels(predictor.plans_manager, configuration, predictor.dataset_json)
        image = torch.zeros(1, channels, *configuration.patch_size)
        name = f'fold_{fold}.onnx'
        with torch.no_grad():
            torch.onnx.export(network, (image,), str(Path(output) / name), input_names=['image'], output_names=['scores'], opset_version=17,
                              dynamo=False)
        files.append(name)
    plans = predictor.plans_manager
    regions = []
    if labels.has_regions:
        named = [(name, list(region) if isinstance(region, (list, tuple)) else [region])
                 for name, region in predictor.dataset_json['labels'].items() if name != 'ignore']
        named = [(name, region) for name, region in named if set(region) != {0}]  # in the order of the channels, as LabelManager has them
        regions = [{'name': name, 'labels': region, 'label': label} for (name, region), label in zip(named, labels.regions_class_order, strict=True)]
    json.dump({
        'files': files,
        'dataset': plans.dataset_name,
        'channels': list(predictor.dataset_json['channel_names'].values()),
        'patch': list(configuration.patch_size),
        'spacing': list(configuration.spacing),
        'transpose': list(plans.transpose_forward),
        'mirror': list(predictor.allowed_mirroring_axes or []),
        'normalization': configuration.normalization_schemes,
        'use_mask': configuration.use_mask_for_norm,
        'intensity': list(plans.foreground_intensity_properties_per_channel.values()),
        'resampling': [configuration.configuration['resampling_fn_data'], configuration.configuration['resampling_fn_data_kwargs']],
        'resampling_back': [configuration.configuration['resampling_fn_probabilities'], configuration.configuration['resampling_fn_probabilities_kwargs']],
        'resampling_seg': [configuration.configuration['resampling_fn_seg'], configuration.configuration['resampling_fn_seg_kwargs']],
        'previous_stage': configuration.previous_stage_name,
        'foreground': [int(label) for label in labels.foreground_labels],
        'labels': {name: label for name, label in predictor.dataset_json['labels'].items() if name != 'ignore'},
        'regions': regions,
    }, answer)
