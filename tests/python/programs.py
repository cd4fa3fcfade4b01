"""Other people's programs, run by the checks of this folder."""
import os
import shutil
import subprocess
import sys
from pathlib import Path


def tool(*command):
    """Exit status and output of a program that stands beside this Python or in PATH."""
    beside = Path(sys.executable).parent / command[0]
    program = str(beside) if beside.exists() else shutil.which(command[0])
    if program is None:
        sys.exit(f'{command[0]} is not installed: run the tests with tests/run')
    done = subprocess.run([program, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode('utf-8', 'replace')


def dcmtk(*command):
    """Exit status and output of a program of DCMTK: pynetdicom puts others of the same names beside this Python."""
    elsewhere = [folder for folder in os.environ['PATH'].split(os.pathsep) if Path(folder) != Path(sys.executable).parent]
    program = shutil.which(command[0], path=os.pathsep.join(elsewhere))
    if program is None:
        sys.exit(f'{command[0]} of DCMTK is not installed: run the tests with tests/run')
    return tool(program, *command[1:])


def dciodvfy_errors(path):
    """What dciodvfy (dicom3tools) calls an error."""
    _, text = tool('dciodvfy', str(path))
    return [line for line in text.splitlines() if line.startswith(('Error', 'Abort'))]


def dsrdump_complaints(path):
    """What dsrdump (DCMTK) says beside the report, warnings too."""
    status, text = tool('dsrdump', str(path))
    lines = [line for line in text.splitlines() if line.startswith(('E:', 'F:', 'W:'))]
    return lines or ([text] if status != 0 else [])
