"""Wrote the folders beside it, by SAELens 6.54.12 and Overcomplete 0.3.0 themselves: ``python write.py FOLDER``."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_saelens(folder):
    from sae_lens import SAE, saes

    sizes = {"d_in": 6, "d_sae": 10}
    made = {
        "standard": saes.StandardSAE(saes.StandardSAEConfig(**sizes)),
        "topk": saes.TopKSAE(saes.TopKSAEConfig(**sizes, k=3)),
        "topk_rescaled": saes.TopKSAE(saes.TopKSAEConfig(**sizes, k=3, rescale_acts_by_decoder_norm=True)),
        "jumprelu": saes.JumpReLUSAE(saes.JumpReLUSAEConfig(**sizes)),
        "batchtopk": saes.BatchTopKTrainingSAE(saes.BatchTopKTrainingSAEConfig(**sizes, k=3)),
        "gated": saes.GatedSAE(saes.GatedSAEConfig(**sizes)),
        "layer_norm": saes.StandardSAE(saes.StandardSAEConfig(**sizes, normalize_activations="layer_norm")),
        "hook_z": saes.StandardSAE(saes.StandardSAEConfig(**sizes, reshape_activations="hook_z")),
    }
    torch.manual_seed(0)
    x = torch.randn(5, 6)
    for name, sae in made.items():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.5 if parameter.ndim > 1 else 0.2))
        if name == "jumprelu":
            sae.threshold.abs_()
        if name == "batchtopk":
            sae.topk_threshold.fill_(0.3)
            sae.save_inference_model(folder / name)
        else:
            sae.save_model(folder / name)
        if name not in ("gated", "layer_norm", "hook_z"):
            loaded = SAE.load_from_disk(str(folder / name))
            latents = loaded.encode(x).contiguous()
            state = {"x": x, "latents": latents, "decoded": loaded.decode(latents).contiguous()}
            save_file(state, folder / name / "expected.safetensors")


def write_overcomplete(folder):
    import matplotlib

    matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # gone since 3.9, and called when Overcomplete is imported
    from overcomplete.sae import TopKSAE

    torch.manual_seed(0)
    sae = TopKSAE(6, nb_concepts=10, top_k=3)
    optimizer = torch.optim.Adam(sae.parameters(), 1e-2)
    with torch.enable_grad():
        for _ in range(50):
            x = torch.randn(64, 6) * torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5, 0.2]) + 1
            loss = (x - sae(x)[2]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    sae.eval()
    x = torch.randn(5, 6)
    latents = sae.encode(x)[1].contiguous()
    state = {"x": x, "latents": latents, "decoded": sae.decode(latents).contiguous()}
    state["dictionary"] = sae.get_dictionary().contiguous()
    folder.mkdir()
    save_file({name: part.contiguous() for name, part in sae.state_dict().items()}, folder / "state.safetensors")
    save_file(state, folder / "expected.safetensors")


if __name__ == "__main__":
    with torch.no_grad():
        write_saelens(Path(sys.argv[1]))
        write_overcomplete(Path(sys.argv[1]) / "overcomplete")
