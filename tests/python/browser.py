"""A page in headless Chromium, over its DevTools protocol (a pipe: no port, no other package)."""
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time


class Browser:
    """Chromium with a profile of its own. `requests` and `complaints` are what the page asked the network for and what it complained of."""

    def __init__(self, scripts=True):
        program = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
        if program is None:
            sys.exit('chromium is not installed: run the tests with tests/run')
        self.profile = tempfile.mkdtemp()
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()

        def pipes():
            # Chromium reads from 3 and writes to 4; through higher numbers first, so that none overwrites the other.
            a, b = os.dup(to_browser), os.dup(from_browser)
            a, b = os.dup2(a, 103), os.dup2(b, 104)
            os.dup2(a, 3)
            os.dup2(b, 4)

        options = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-dev-shm-usage', '--no-first-run',
                   '--remote-debugging-pipe', f'--user-data-dir={self.profile}', 'about:blank']
        self.process = subprocess.Popen([program, *options], preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.number, self.received, self.session = 0, b'', None
        self.requests, self.complaints, self.loaded = [], [], False
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self.session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')
        self.call('Emulation.setFocusEmulationEnabled', enabled=True)
        self.call('Emulation.setScrollbarsHidden', hidden=True)
        if not scripts:
            self.call('Emulation.setScriptExecutionDisabled', value=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **parameters):
        """The answer to one call; what happens meanwhile is noted."""
        self.number += 1
        message = {'id': self.number, 'method': method, 'params': parameters}
        if self.session:
            message['sessionId'] = self.session
        data = json.dumps(message).encode() + b'\0'
        while data:
            data = data[os.write(self.write_end, data):]
        number = self.number
        while True:
            answer = self.next_message()
            if answer.get('id') == number:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]["message"]}')
                return answer['result']
            self.note(answer)

    def next_message(self):
        while b'\0' not in self.received:
            more = os.read(self.read_end, 1 << 20)
            if not more:
                raise RuntimeError('chromium has ended')
            self.received += more
        message, self.received = self.received.split(b'\0', 1)
        return json.loads(message)

    def note(self, event):
        method, parameters = event.get('method'), event.get('params', {})
        if method == 'Network.requestWillBeSent':
            url = parameters['request']['url']
            if not url.startswith('data:') and url != parameters['documentURL']:
                self.requests.append(url)
        elif method == 'Runtime.exceptionThrown':
            self.complaints.append(parameters['exceptionDetails'].get('text', 'exception'))
        elif method == 'Runtime.consoleAPICalled':
            self.complaints.append(' '.join(str(a.get('value')) for a in parameters['args']))
        elif method == 'Log.entryAdded':
            self.complaints.append(parameters['entry']['text'])
        elif method == 'Page.loadEventFired':
            self.loaded = True

    def open(self, path):
        """Loads a file and waits till it is there."""
        self.loaded = False
        self.call('Page.navigate', url=path.resolve().as_uri())
        until = time.monotonic() + 60
        while not self.loaded and time.monotonic() < until:
            self.note(self.next_message())

    def value(self, expression):
        """What an expression of JavaScript gives."""
        answer = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in answer:
            raise RuntimeError(answer['exceptionDetails']['exception'].get('description', 'exception'))
        return answer['result'].get('value')

    def press(self, key):
        """A key, as a person presses it."""
        for kind in ('rawKeyDown', 'keyUp'):
            codes = {'ArrowRight': 39, 'ArrowLeft': 37, 'End': 35, ' ': 32, 'Tab': 9}
            self.call('Input.dispatchKeyEvent', type=kind, key=key, code=key if key != ' ' else 'Space', windowsVirtualKeyCode=codes[key])

    def look(self, width, dark=False, printed=False):
        """Window of this width; light or dark, on the screen or on paper."""
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = [{'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}]
        self.call('Emulation.setEmulatedMedia', media='print' if printed else 'screen', features=scheme)

    def screenshot(self, path):
        """The whole page as PNG."""
        data = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=True)['data']
        path.write_bytes(base64.b64decode(data))
