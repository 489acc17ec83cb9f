"""The Kaggle kernel: packaged, checked, uploaded, run.

In the kernel: kernel_script (the kernel itself), kernel, budget, mounts, records. Before it:
package (with notebook, wheels, licences and metadata), kernel_check, push (with client).
"""
