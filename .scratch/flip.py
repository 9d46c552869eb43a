import sys, time, os; sys.path.insert(0,'tests')
import torch, numpy as np, argparse
from pathlib import Path
from kdhelpers import artifacts
from kdhelpers.inert import InertFile, Unreadable
from kdhelpers.models import build_model
import resource
resource.setrlimit(resource.RLIMIT_AS,(12<<30,12<<30))
m=build_model('resnet8',7)
p=Path('.scratch/x.pth'); torch.save({"epoch":1,"model":m.state_dict(),"acc":np.float64(2),"opt":argparse.Namespace(a=1)},p,_use_new_zipfile_serialization=False)
w=p.read_bytes(); print(len(w)); r=np.random.RandomState(0)
for place in r.randint(0,8000,60):
    c=bytearray(w); bit=r.randint(8); c[place]^=1<<bit; p.write_bytes(c)
    t=time.time()
    try: artifacts.load_tensors(p); a='ok'
    except ValueError as e: a=str(e)[:60]
    t1=time.time()
    try: InertFile(p); b='ok'
    except Unreadable as e: b=str(e)[:110]
    t2=time.time()
    if t2-t>0.3: print(place,bit,bytes(w[place-3:place+4]),round(t1-t,2),round(t2-t1,2),a,b)
