import torch, copy, time
from kdhelpers.models import build_model, Observed, MODELS
from kdhelpers.methods import METHODS, Context
from kdhelpers.data import Batch
print(list(MODELS))
pairs="wrn_40_2>wrn_16_2 wrn_40_2>wrn_40_1 resnet56>resnet20 resnet110>resnet20 resnet110>resnet32 resnet32x4>resnet8x4 vgg13>vgg8 vgg13>mobilenetv2 resnet50>mobilenetv2 resnet50>vgg8 resnet32x4>shufflenetv1 resnet32x4>shufflenetv2 wrn_40_2>shufflenetv1".split()
for p in pairs:
    t,s=p.split(">")
    try:
        tn=Observed(build_model(t,100).eval().requires_grad_(False)); net=build_model(s,100); sn=Observed(net)
    except Exception as e: print(p,type(e),str(e)[:80]); continue
    x=torch.zeros(2,3,32,32)
    net.eval(); o=sn(x),tn(x); net.train()
    m=METHODS["cocord"]()
    m.build(Context(*o,lambda: Observed(copy.deepcopy(net)).requires_grad_(False),torch.zeros(9).long(),100,list(net.parameters())))
    b=Batch(tuple(torch.randn(3,2,3,32,32)),torch.tensor([1,2]),torch.tensor([0,1]),{})
    terms=m(sn,tn,b,1); sum(terms.values()).backward()
    t0=time.perf_counter()
    for _ in range(20): m._follow()
    dt=(time.perf_counter()-t0)/20
    t0=time.perf_counter()
    for _ in range(20): [*m.slow.parameters(), *m.slow_projector.parameters()]
    walk=(time.perf_counter()-t0)/20
    print(p,o[0].embedding.shape[1],o[1].embedding.shape[1],m.teacher_follows,{k:round(v.item(),3) for k,v in terms.items()},all(q.grad.isfinite().all() for q in net.parameters()),f"follow {dt*1e3:.1f} ms walk {walk*1e3:.2f} ms")
