import sys, json; sys.path.insert(0,'/work/shared')
import torch, numpy as np, fill
from kdhelpers.models import *
z=json.load(open('/work/shared/zoo_keys.json')); r=np.load('/work/shared/zoo_reference.npz')
x=torch.from_numpy(fill.input_batch())
for n in z:
    if n not in MODELS: print('not here', n); continue
    m=build_model(n,100)
    sd={k:list(v.shape) for k,v in m.state_dict().items()}
    assert list(sd.items())==list((k,list(v)) for k,v in z[n]['state_dict'].items()), n
    assert count_parameters(m)==z[n]['param_count']
    fill.fill_module(m); m.double().eval()
    with torch.no_grad():
        o=Observed(m)(x.double())
    shapes=[list(v.shape) for v in o.maps.values()]+[list(o.embedding.shape)]
    assert shapes==z[n]['feature_shapes'], (n, shapes)
    post=[bool((v>=0).all()) for v in [*o.maps.values(),o.embedding]]
    assert post==z[n]['feature_post_relu'],(n,post)
    print(n, list(o.maps), 'ok', np.abs(o.logits.numpy()-r[n]).max() if n in r else '', count_macs(m,32))
