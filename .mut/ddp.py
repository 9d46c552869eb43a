import sys
from kdhelpers import Run, fit, artifacts
t=fit(Run(model="resnet8",epochs=1,batch_size=128,role="teacher",name="ddp_teacher"))
run=Run(model="resnet8",epochs=2,batch_size=128,precision="fp32",method="cocord",teacher=t.name,hyperparameters={"queue_size":100,"dim":16,"hidden_dim":32,"predictor_dim":8,"kd_weight":0.5},name="ddp_student")
artifacts.save_json(artifacts.root()/"run.json",run.model_dump())
