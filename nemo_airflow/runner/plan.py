"""TEMPORARY."""
import importlib
class PlanError(ValueError): pass
def build(plan, allow):
    def b(n):
        if isinstance(n, dict):
            if "_target_" in n:
                mod,_,q=n["_target_"].partition(":")
                f=importlib.import_module(mod)
                for x in q.split("."): f=getattr(f,x)
                a=[b(v) for v in n.get("_args_",[])]
                k={kk:b(v) for kk,v in n.items() if not kk.startswith("_")}
                if n.get("_partial_"):
                    import functools; return functools.partial(f,*a,**k)
                return f(*a,**k)
            return {k:b(v) for k,v in n.items()}
        if isinstance(n,list): return [b(v) for v in n]
        return n
    return b(plan["root"])
