"""The network of a MONAI bundle as an ONNX graph, and what its configuration does around it, by MONAI itself.

usage: export_monai.py BUNDLE_DIR CONFIG WEIGHTS OUTPUT_DIR

BUNDLE_DIR    holds CONFIG (configs/inference.json), configs/metadata.json and WEIGHTS
WEIGHTS       a checkpoint (.pt) of `network_def` or `network`, or TorchScript (.ts)
OUTPUT_DIR    gets model.onnx: float32 `image` and `scores`

Prints one JSON object. Transforms are named by class, with all arguments that their constructors took, defaults included; `arguments` is null
where they were not made from the configuration. The graph is held against torch on a random patch.
"""
import contextlib
import inspect
import json
import sys
from pathlib import Path

bundle, config, weights, output = map(Path, sys.argv[1:])
answer = sys.stdout
# How far ONNX Runtime's scores may be from torch's, as a part of their range.
LIMIT = 1e-4
MULTIPLE = 32  # of which a patch is made where the bundle names none


def plain(value):
    """What JSON can hold; anything else by its text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return plain(value.tolist())
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, '__name__', None) or type(value).__name__


def arguments_of(component, keywords):
    """Of a constructor by name, defaults included."""
    parameters = inspect.signature(component).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return plain({**defaults, **keywords})


with contextlib.redirect_stdout(sys.stderr):
    import numpy as np
    import onnxruntime
    import torch
    from monai.bundle import ConfigParser, config_item
    from monai.transforms import Compose

    made = {}
    instantiate = config_item.instantiate

    def remembered(path, mode, /, **keywords):
        """The component, which stays alive so that its id is its own."""
        component = instantiate(path, mode, **keywords)
        if not isinstance(component, torch.nn.Module):
            made[id(component)] = component, arguments_of(type(component), keywords)
        return component

    config_item.instantiate = remembered
    sys.path.insert(0, str(bundle))  # a bundle may bring `scripts` of its own
    parser = ConfigParser()
    parser.read_config(str(bundle / config))
    metadata = {}
    if (bundle / 'configs/metadata.json').is_file():
        parser.read_meta(str(bundle / 'configs/metadata.json'))
        metadata = json.loads((bundle / 'configs/metadata.json').read_text())
    parser['bundle_root'] = str(bundle)

    def described(component):
        return {'name': type(component).__name__, 'arguments': made.get(id(component), (None, None))[1]}

    def transforms(name):
        if name not in parser:
            return []
        found = parser.get_parsed_content(name)
        composed = found.flatten().transforms if isinstance(found, Compose) else [found]
        return [described(transform) for transform in composed]

    def load():
        if weights.suffix == '.ts':
            return torch.jit.load(str(bundle / weights), map_location='cpu').eval()
        name = next((name for name in ('network_def', 'net', 'network') if name in parser), None)
        if name is None:
            sys.exit(f'{config} defines no `network_def`, `net` or `network`')
        network = parser.get_parsed_content(name).cpu().eval()
        state = torch.load(str(bundle / weights), map_location='cpu', weights_only=True)
        for key in ('model', 'state_dict'):
            state = state.get(key, state) if isinstance(state, dict) else state
        network.load_state_dict(state)
        return network

    def export(network, shape, dynamic):
        axes = {0: 'n', **({axis: f'axis_{axis}' for axis in range(2, len(shape))} if dynamic else {})}
        with torch.no_grad():
            torch.onnx.export(network, (torch.rand(shape),), str(output / 'model.onnx'), input_names=['image'], output_names=['scores'],
                              opset_version=17, dynamo=False, dynamic_axes={'image': axes, 'scores': axes})

    def compare(network, shape):
        """The largest difference to torch, as a part of the range of scores."""
        image = torch.randn(shape)
        with torch.no_grad():
            expected = network(image)
        if not isinstance(expected, torch.Tensor):
            sys.exit(f'the network answers with a {type(expected).__name__}, not one tensor')
        session = onnxruntime.InferenceSession(str(output / 'model.onnx'), providers=['CPUExecutionProvider'])
        (found,) = session.run(['scores'], {'image': image.numpy()})
        if found.shape != tuple(expected.shape):
            raise ValueError(f'the graph answers with {found.shape}, torch with {tuple(expected.shape)}')
        return list(expected.shape), float(np.abs(found - expected.numpy()).max() / max(np.ptp(expected.numpy()), 1e-6))

    network = load()
    form = metadata.get('network_data_format', {})
    image_format = next(iter(form.get('inputs', {}).values()), {})
    output_format = next(iter(form.get('outputs', {}).values()), {})
    inferer = described(parser.get_parsed_content('inferer')) if 'inferer' in parser else {'name': 'SimpleInferer', 'arguments': {}}
    roi = (inferer['arguments'] or {}).get('roi_size')
    patch = roi if isinstance(roi, list) else image_format.get('spatial_shape', [])
    axes = len(patch) or 3
    patch = [n if isinstance(n, int) and n > 0 else 2 * MULTIPLE for n in patch] or [2 * MULTIPLE] * axes
    channels = int(image_format.get('num_channels', 1))
    shape = [1, channels, *patch]
    dynamic = True
    try:
        export(network, shape, dynamic)
        compare(network, [1, channels, *(n + MULTIPLE for n in patch[:-1]), patch[-1]])
    except Exception as error:  # whatever an exporter says: one size is enough where patches have one
        print(f'exported for one size: {error}')
        dynamic = False
        export(network, shape, dynamic)
    answered, off = compare(network, shape)
    if not off <= LIMIT:
        sys.exit(f'the exported graph differs from torch by {off:.1e} of the range of scores, {LIMIT:.0e} is allowed')

    json.dump({
        'name': str(metadata.get('name', '')),
        'version': str(metadata.get('version', '')),
        'monai_version': str(metadata.get('monai_version', '')),
        'modality': str(image_format.get('modality', '')),
        'patch': patch,
        'dynamic': dynamic,
        'channels': channels,
        'output': answered,
        'off': off,
        'input_channel_def': {str(channel): str(name) for channel, name in image_format.get('channel_def', {}).items()},
        'channel_def': {str(channel): str(name) for channel, name in output_format.get('channel_def', {}).items()},
        'preprocessing': transforms('preprocessing'),
        'inferer': inferer,
        'postprocessing': transforms('postprocessing'),
    }, answer)
