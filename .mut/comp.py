from kdhelpers import Run, fit
import time
H={"queue_size":100,"dim":16,"hidden_dim":32,"predictor_dim":8,"kd_weight":0.5}
for name,prec,c in (("c0","fp32",False),("c1","fp32",True),("c2","bf16",False)):
    t0=time.time()
    r=fit(Run(model="resnet8",epochs=1,batch_size=128,precision=prec,method="cocord",teacher="ddp_teacher",hyperparameters=H,name=name),force_retrain=True,compile=c)
    print(name,time.time()-t0,r.history)
