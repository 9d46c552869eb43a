import subprocess,sys,os
R="/tmp/kd/cocord/"
C="kdhelpers/methods/cocord.py";Q="kdhelpers/methods/queue.py";M="kdhelpers/methods/ema.py"
T="tests/methods/test_cocord.py tests/methods/test_queue.py tests/methods/test_ema.py".split()
muts=[
(C,".div_(temperature).log_softmax",".log_softmax"),
(C,"slope[:, 0] -= 1 / (temperature * len(log_p))","slope[:, 0] -= 1 / len(log_p)"),
(C,"slope[:, 1:] @ queue","slope[:, 1:] @ queue * 0.9"),
(C,"target.flip(1)","target"),
(C,"return of_loss * slope,","return slope,"),
(C,"        with torch.autocast(student.device.type, enabled=False):\n            own","        if True:\n            own"),
(C,"        self._follow()\n","        pass\n"),
(C,"follow(slow, [*self.student_parameters, *self.projector.parameters()], self.slow_momentum)","follow(slow, [*self.student_parameters, *self.projector.parameters()], self.teacher_momentum)"),
(C,"        if self.teacher_follows:\n            follow","        if True:\n            follow"),
(C,"        if self.teacher_follows:\n            follow","        if False:\n            follow"),
(C,"teacher(shown)","teacher(own)"),
(C,"teacher(own).logits","teacher(shown).logits"),
(C,"(own, other))","(other, own))"),
(C,"        self.queue.enqueue(key)\n",""),
(C,"        loss = cocord_contrast_loss(query, key, self.queue.keys, self.temperature)\n        self.queue.enqueue(key)\n","        self.queue.enqueue(key)\n        loss = cocord_contrast_loss(query, key, self.queue.keys, self.temperature)\n"),
(C,"self.slow_projector = copy.deepcopy(self.projector).requires_grad_(False)","self.slow_projector = copy.deepcopy(self.projector)"),
(C,"self.teacher_projector = copy.deepcopy(start).requires_grad_(False)","self.teacher_projector = copy.deepcopy(start)"),
(C,"query = F.normalize(full_precision(projected), dim=1)","query = full_precision(projected)"),
(C,"key = F.normalize(full_precision(self.teacher_projector(shown)), dim=1)","key = full_precision(self.teacher_projector(shown))"),
(C,"        if self.kd_weight:\n            terms","        if True:\n            terms"),
(C,"start = self.projector if self.teacher_follows else batchnorm_mlp(teacher_width, self.hidden_dim, self.dim)","start = batchnorm_mlp(teacher_width, self.hidden_dim, self.dim)"),
(C,"self.projector(student(other).embedding)","self.projector(student(own).embedding)"),
(C,"self.slow_projector(self.slow(view).embedding) for","self.slow_projector(self.slow.eval()(view).embedding) for"),
(C,"bool(ce_weight or kd_weight)","bool(ce_weight)"),
(C,"self.student_parameters = list(context.student_parameters)","self.student_parameters = nn.ParameterList(context.student_parameters)"),
(C,"        with torch.no_grad():\n            slow =","        if True:\n            slow ="),
(Q,"rows % size","rows.clamp(max=size - 1)"),
(Q,"latest = keys[-size:]","latest = keys[:size]"),
(Q,"torch.arange(len(keys) - len(latest), len(keys), device=keys.device)","torch.arange(len(latest), device=keys.device)"),
(Q,".remainder_(size)",""),
(Q,"self.register_buffer(\"oldest\", torch.zeros((), dtype=torch.int64))","self.oldest = torch.zeros((), dtype=torch.int64)"),
(Q,"F.normalize(torch.randn(size, dim), dim=1)","torch.zeros(size, dim)"),
(M,"list(sources), 1 - momentum","list(sources), momentum"),
(M,"@torch.no_grad()\n",""),
("kdhelpers/loop.py","list(self.network.parameters())","list(copy.deepcopy(self.network).parameters())"),
]
env=dict(os.environ,PYTHONPATH=R,OMP_NUM_THREADS="1",PYTHONDONTWRITEBYTECODE="1")
for i,(f,a,b) in enumerate(muts):
    if len(sys.argv)>1 and str(i) not in sys.argv[1:]: continue
    s=open(R+f).read()
    assert s.count(a)>=1,(i,a)
    m=s.replace(a,b,1)
    if "nn.ParameterList" in b: m=m.replace("from torch import Tensor\n","from torch import Tensor, nn\n")
    open(R+f,"w").write(m)
    try:
        r=subprocess.run(["/work/main/.venv/bin/python","-m","pytest","-q","-x","-p","no:cacheprovider",*T],cwd=R,env=env,capture_output=True,text=True)
        last=[l for l in r.stdout.splitlines() if l.startswith("FAILED") or l.startswith("ERROR")]
        print(i,"killed" if r.returncode else "SURVIVED",b[:60].replace("\n"," "),"|",(last or [""])[0][:90],flush=True)
    finally: open(R+f,"w").write(s)
